"""The images and the steps of a trial as files, which worker processes map into their memory.

They lie in a hidden folder of the output folder, for as long as the trial is worked on. Images stay
unsigned bytes; all workers of a machine share the pages that they map.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from utils.data.images import ImageSet
from utils.data.splits import TrialData
from utils.output.storage import TRIAL
from utils.training.evaluation import batches_of
from utils.training.steps import Step, archive_of, steps_in
from utils.training.trial import Trial

UInt8 = npt.NDArray[np.uint8]
WRITTEN_AT_ONCE = 10_000
"""Images."""
REST = "rest.joblib"


@dataclass(frozen=True)
class TransferredTrial:
    """What the stages of a trial work on besides its network: its images and its steps."""

    data: TrialData
    steps: list[Step]


def hand_over(trial: Trial) -> Path:
    """Write what a worker needs of a trial; returns the folder that holds it."""
    root = trial.folder.root
    folder = root.absolute() / f"{TRIAL}{trial.seed}.{secrets.token_hex(4)}.tmp"
    folder.mkdir()
    for name, images in _sets(trial.data).items():
        _save_images(images.images, folder / f"{name}.npy")
    bare = _with_images(trial.data, lambda name: _NO_IMAGES)
    joblib.dump((bare, archive_of(trial.steps)), folder / REST)
    return folder


def take_over(folder: Path) -> TransferredTrial:
    """What `hand_over` wrote; the images are mapped into memory, not read."""
    data, steps = joblib.load(folder / REST)
    whole = _with_images(data, lambda name: np.load(folder / f"{name}.npy", mmap_mode="r"))
    return TransferredTrial(whole, steps_in(steps))


def sent(folder: Path) -> dict[str, bytes]:
    """What `hand_over` wrote, to be sent to a machine that does not see the folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def unpacked(files: dict[str, bytes]) -> TransferredTrial:
    """As `take_over`, of what was `sent`."""
    data, steps = joblib.load(io.BytesIO(files[REST]))
    whole = _with_images(data, lambda name: np.load(io.BytesIO(files[f"{name}.npy"])))
    return TransferredTrial(whole, steps_in(steps))


_NO_IMAGES = np.empty((0, 1, 1, 1), np.uint8)


def _sets(data: TrialData) -> dict[str, ImageSet]:
    values = {field.name: getattr(data, field.name) for field in fields(data)}
    return {name: value for name, value in values.items() if isinstance(value, ImageSet)}


def _with_images(data: TrialData, load: Callable[[str], UInt8]) -> TrialData:
    """The same with other images, which `load` gives by the name of their set."""
    sets: dict[str, Any] = {
        name: replace(images, images=load(name)) for name, images in _sets(data).items()
    }
    return replace(data, **sets)


def _save_images(images: UInt8, path: Path) -> None:
    """Write (N, H, W, C) as a .npy file, piece by piece: they may be too many for the memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(images.shape)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]
        for rows in batches_of(len(images), WRITTEN_AT_ONCE):
            stream.write(np.ascontiguousarray(images[rows]).tobytes())
