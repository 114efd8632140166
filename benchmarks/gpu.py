"""What a GPU computes: whether it is repeatable and agrees with the CPU, and how fast it is.

    python benchmarks/gpu.py --out DIR [--context cudnn]

Runs eval_sgd_influence.py on the embedded digits a few times, compares what the runs wrote, and
times the steps of three nets; 3 to 10 minutes. Needs `make venv-cuda` and a GPU; with --context cpu
the CPU is compared with itself. The output folders stay in DIR, and runs that are there are not
repeated. Prints questions and answers, and writes them to DIR/gpu.csv; docs/gpu.md has those of an
H100 in short.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

import numpy as np
import pandas as pd

from benchmarks.speed import scoring_step, training_step
from utils.errors import UserError
from utils.output.storage import read_csv, save_csv
from utils.training.device import choose_backend, set_context
from utils.training.models import MODELS

COMMAND = "eval_sgd_influence.py -ds digits -nt 1 -r 0 40 --no_report -q"
ALL = "--methods Hara Hara_exact Ours Ours_exact Ours_mean Influence_functions AUM"
SHORT = "-e 1 --n_train 640"
"""Ten steps. In longer trainings rounding changes a ReLU or a maximum, and the nets part."""
TRAININGS = {
    "first": f"{ALL} --cache steps",
    "again": f"{ALL} --cache steps",
    "recomputed": f"{ALL} --cache recompute",
    "short": f"{ALL} --cache steps {SHORT}",
}
"""The runs on the GPU by the names of their folders, and their options."""
SIX_TRIALS = "--methods Random -nt 6 -e 2 -r 0"
NETS = ("six_convolutions", "smooth_convolutions", "resnet")
WRITTEN = ("infl_results_sgd", "influence", "score")
"""The folders of a run whose files depend on what was computed alone."""
TIMES = 30


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument(
        "--context", default="cudnn", choices=("cpu", "cudnn"), help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    try:
        set_context(choose_backend(options.context, ("0",)), "0")
    except UserError as error:
        print(f"gpu.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for question, answer in answers(options.out, options.context):
        print(f"{question}: {answer}", flush=True)
        rows.append({"question": question, "answer": answer})
    save_csv(pd.DataFrame(rows), options.out / "gpu.csv")


def answers(out: Path, context: str) -> Iterator[tuple[str, str]]:
    """Questions and their answers."""
    for name, options in TRAININGS.items():
        run(out / name, f"{options} --context {context}")
    yield from repeatability(out)
    for method, figure in agreement(out / "first", scored_on_cpu(out)).items():
        yield f"same states scored on the CPU, {method}", shown(*figure)
    run(out / "short_on_cpu", f"{TRAININGS['short']} --context cpu --conv nnabla")
    for method, figure in agreement(out / "short", out / "short_on_cpu").items():
        yield f"ten steps trained and scored on the CPU, {method}", shown(*figure)
    yield from speeds()
    yield "memory of the GPU after each of six trials, MB", memory_of(out / "trials", context)


def repeatability(out: Path) -> Iterator[tuple[str, str]]:
    """Whether a run gives the same when it is run again, and when states are recomputed."""
    for name, case in (("again", "run twice"), ("recomputed", "states kept or recomputed")):
        folders = WRITTEN if name == "again" else WRITTEN[1:]
        yield f"{case}: files with the same bytes", shared_bytes(out / "first", out / name, folders)
        yield f"{case}: largest difference", largest(agreement(out / "first", out / name))


def run(folder: Path, options: str) -> None:
    """Run the command into a folder; raises SystemExit if it fails."""
    if (folder / "summary" / "summary.csv").exists():
        return
    command = [sys.executable, *COMMAND.split(), *options.split(), "-o", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def shared_bytes(one: Path, other: Path, folders: Sequence[str]) -> str:
    """How many files of `one` are in `other` with the same bytes."""
    names = [
        path.relative_to(one)
        for folder in folders
        for path in sorted((one / folder).rglob("*"))
        if path.is_file() and path.suffix != ".nnp"  # a ZIP file, which holds the time
    ]
    equal = [name for name in names if _content(one / name) == _content(other / name)]
    differ = [str(name) for name in names if name not in equal]
    return f"{len(equal)} of {len(names)} files" + (
        f"; not {', '.join(differ[:3])}" if differ else ""
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def scored_on_cpu(out: Path) -> Path:
    """A copy of the first run whose training is scored on the CPU."""
    copy, copying = out / "first_on_cpu", out / "first_copied"
    if not copy.exists():
        left_out = shutil.ignore_patterns("influence", "score", "summary")
        shutil.rmtree(copying, ignore_errors=True)
        shutil.copytree(out / "first", copying, ignore=left_out)
        copying.rename(copy)
    run(copy, f"{TRAININGS['first']} --context cpu")
    return copy


def agreement(one: Path, other: Path) -> dict[str, tuple[float, float]]:
    """How far the scores of two runs differ.

    Returns:
        Of each method: the difference, as a share of the scores' norm, and Spearman's rho.
    """
    figures = {}
    for file in sorted((one / "influence").glob("*/influence_*.csv")):
        a, b = (
            read_csv(folder / file.relative_to(one)).set_index("datasource_index")["influence"]
            for folder in (one, other)
        )
        b = b.loc[a.index]
        apart = float(np.linalg.norm(a - b) / np.linalg.norm(b))
        figures[file.parent.name] = apart, float(a.corr(b, method="spearman"))
    return figures


def shown(apart: float, rank: float) -> str:
    """A difference and a rank correlation for the table."""
    return f"difference {apart:.1e} of the scores' norm, Spearman {rank:.4f}"


def largest(figures: Mapping[str, tuple[float, float]]) -> str:
    """The method whose scores differ most."""
    method = max(figures, key=lambda name: figures[name][0])
    return f"{method}: {shown(*figures[method])}"


def speeds() -> Iterator[tuple[str, str]]:
    """Milliseconds of a training step of 64 images of 3x32x32 and of its exact adjoint."""
    for net in NETS:
        step, score = (milliseconds(kind(MODELS[net])) for kind in (training_step, scoring_step))
        yield f"a training step; its adjoint, {net}", f"{step:.1f} ms; {score:.1f} ms"


def milliseconds(action: Callable[[], object]) -> float:
    """Median of `TIMES` runs of an action that waits for its result, after three others."""
    seconds = []
    for _ in range(3 + TIMES):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return 1000 * median(seconds[3:])


def memory_of(folder: Path, context: str) -> str:
    """What nvidia-smi says that the first GPU holds when each trial of a run has just ended."""
    if not shutil.which("nvidia-smi"):
        return "not known: there is no nvidia-smi"
    shutil.rmtree(folder, ignore_errors=True)
    held: dict[int, int] = {}
    with ThreadPoolExecutor() as threads:
        running = threads.submit(run, folder, f"{SIX_TRIALS} --context {context}")
        while not running.done():
            held.setdefault(len(list((folder / "score").glob("*/score_*.csv"))), _memory_held())
            time.sleep(0.1)
        running.result()
    return ", ".join(str(held[n]) for n in sorted(held) if n)


def _memory_held() -> int:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])


if __name__ == "__main__":
    main()
