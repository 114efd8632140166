"""What both sides share, NumPy only: a recorded training in one file, the result of a scoring."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
KILLED = "the process was killed while it scored, as it is where memory runs out"


@dataclass(frozen=True)
class Problem:
    """A recorded training, n images of C channels, n_val for validation, E epochs, T steps.

    Attributes:
        seed: of everything in it.
        model: the product's name of the net.
        images: (n, H, W, C) uint8.
        labels: (n,) as trained on.
        x: (n, C, H, W) float32, the images as the net sees them.
        x_val: (n_val, C, H, W) float32.
        images_val: (n_val, H, W, C) uint8.
        labels_val: (n_val,).
        batches: (sum of |B_t|,) rows of the training set, step after step.
        sizes: (T,) |B_t|.
        epochs: (T,) the epoch of each step.
        rates: (T,) learning rates.
        wrong: (n,) mask of the flipped labels; this and the next two are empty where only scores
            are asked for.
        losses: (T,) mean loss of each batch before its step.
        removals: (R, n) masks of what is removed together.
        states: by name (E + 1, ...), at the start of each epoch and at the end.
    """

    seed: int
    model: str
    images: np.ndarray
    labels: np.ndarray
    x: np.ndarray
    x_val: np.ndarray
    images_val: np.ndarray
    labels_val: np.ndarray
    batches: np.ndarray
    sizes: np.ndarray
    epochs: np.ndarray
    rates: np.ndarray
    wrong: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    removals: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    states: Arrays = field(default_factory=dict)

    @property
    def steps(self) -> list[np.ndarray]:
        """The rows of each batch."""
        return np.split(self.batches, np.cumsum(self.sizes)[:-1])

    def state(self, epoch: int) -> Arrays:
        """The state at the start of an epoch, by name; -1 is the final one."""
        return {name: array[epoch] for name, array in self.states.items()}

    def save(self, path: Path) -> None:
        """Write all arrays as one NumPy archive."""
        arrays = {k: v for k, v in vars(self).items() if k != "states"}
        np.savez(path, **arrays, **{f"state:{k}": v for k, v in self.states.items()})

    @classmethod
    def load(cls, path: Path) -> Problem:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if ":" not in name}
            states = {
                name.partition(":")[2]: archive[name] for name in archive.files if ":" in name
            }
        seed, model = int(arrays.pop("seed")), str(arrays.pop("model"))
        return cls(seed=seed, model=model, **arrays, states=states)


@dataclass(frozen=True)
class Result:
    """One scoring.

    Attributes:
        method: as it is shown.
        package: name and version.
        settings: class and arguments.
        predicts: the scores predict changes of the validation loss.
        wall_s: seconds from the saved training to the scores.
        cpu_s: of the process in that time.
        peak_bytes: memory of the process at most.
        idle_bytes: before the scoring, libraries and images included.
        disk_bytes: files that the scoring reads of the training or writes.
        error: why there are no scores; empty if there are.
    """

    method: str
    package: str
    settings: str
    predicts: bool
    wall_s: float = float("nan")
    cpu_s: float = float("nan")
    peak_bytes: int = 0
    idle_bytes: int = 0
    disk_bytes: int = 0
    error: str = ""


def problem_path(folder: Path) -> Path:
    """The recorded training of a problem's folder."""
    return folder / "problem.npz"


def result_path(folder: Path, method: str) -> Path:
    """The result of a method; the scores lie next to it."""
    return folder / "results" / (method.replace(" ", "_").replace(",", "") + ".json")


def scores_path(folder: Path, method: str) -> Path:
    """The scores (n,) of a method; the lowest is the most harmful."""
    return result_path(folder, method).with_suffix(".npy")


def checkpoints_folder(folder: Path) -> Path:
    """The states at the end of each epoch in PyTorch's format."""
    return folder / "checkpoints"


def scratch_folder(folder: Path, method: str) -> Path:
    """Where a library may write."""
    return folder / "scratch" / method.replace(" ", "_")


def parity_path(folder: Path) -> Path:
    """How far PyTorch's training is from the product's."""
    return folder / "parity.json"


def truth_path(folder: Path, which: str) -> Path:
    """The validation losses after retraining without each group, from "last" or "whole"."""
    return folder / f"truth_{which}.csv"


SHARES = (0.03, 0.1)
"""Of the training images, the worst of which are removed for `decisions_path`."""


def decisions_path(folder: Path) -> Path:
    """The accuracies of trainings without the worst images by each method."""
    return folder / "decisions.csv"


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder, or of a file."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def peak_memory() -> int:
    """Bytes that this process has taken at most so far (Linux)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def record(
    folder: Path, result: Result, score: Callable[[], np.ndarray], disk: Callable[[], int]
) -> None:
    """Measure a scoring and write its scores and result; what it raises becomes the error.

    Args:
        folder: of the problem.
        result: what is known before.
        score: gives the scores (n,).
        disk: gives, after it, the bytes on disk.
    """
    known = asdict(result)
    _write(folder, known | {"error": KILLED})  # which stays if the process is
    idle, wall, cpu = peak_memory(), time.perf_counter(), time.process_time()
    try:
        scores = score()
    except Exception as error:  # a library's failure is a result
        known["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    else:
        known |= {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_bytes": peak_memory(),
            "idle_bytes": idle,
            "disk_bytes": disk(),
        }
        np.save(scores_path(folder, result.method), np.asarray(scores, np.float64))
    _write(folder, known)


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    path = result_path(folder, str(known["method"]))
    path.write_text(json.dumps(known), encoding="utf-8")


def load_result(folder: Path, method: str) -> Result:
    """Read what `record` wrote."""
    return Result(**json.loads(result_path(folder, method).read_text(encoding="utf-8")))
