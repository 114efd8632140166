"""What a worker does: it opens a trial, computes a job, and returns the result and the files.

Light until the first job, so that nnabla is quiet when it is imported.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.kernels import cores
from utils.options import Options
from utils.output.folder import DeferredFolder, Pending
from utils.output.lock import has_claim
from utils.output.paths import OutputPaths
from utils.output.usage import peak_memory
from utils.processes import live_under

if TYPE_CHECKING:
    from utils.run.handover import TransferredTrial
    from utils.training.nnp_net import NnpNet
    from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")


@dataclass(frozen=True)
class Setup:
    """What a worker needs to open a trial, besides its images and steps.

    Attributes:
        options: as parsed.
        seed: the trial's.
        backend: where nnabla computes.
        n_classes: number of classes K.
        damping: alpha of the influence functions; None: their solver chooses it.
        root: the output folder, absolute.
        folder: where the trial was handed over, absolute.
        claim: what `run.lock` holds as long as the run lasts.
        net: of a .nnp file, which a worker elsewhere may lack; None for other models, whose names
            are among the options.
        graph: what the net is known by (`Network.graph`).
    """

    options: Options
    seed: int
    backend: str
    n_classes: int
    damping: float | None
    root: Path
    folder: Path
    claim: bytes
    graph: str
    net: NnpNet | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        result: of the job.
        files: files that it wrote or removes; paths are relative to the output folder.
        contents: by path, the content of the files of a worker without access to that folder.
        messages: level and text of what it logged.
        error: that ended it, if it is a mistake of the user.
        process: name of host and process.
        memory: bytes that the process took at most so far.
    """

    result: Any = None
    files: tuple[Pending, ...] = ()
    contents: Mapping[Path, bytes] = field(default_factory=dict)
    messages: tuple[tuple[int, str], ...] = ()
    error: Exception | None = None
    process: str = ""
    memory: int = 0


# ---------------------------------------------------------------- the process


def begin(
    backend: str, device_ids: Sequence[str], parent: int, n_cores: int, free: cores.Semaphore
) -> None:
    """Make a process that was started by this program a worker.

    Args:
        backend: where nnabla computes.
        device_ids: the GPU numbers that workers take in turn.
        parent: id of the process whose end ends this one.
        n_cores: of all workers together.
        free: counts those on which none of them computes.
    """
    live_under(parent)
    cores.share(n_cores, free)
    prepare(backend, device_of(multiprocessing.current_process().name, device_ids))


def device_of(name: str, device_ids: Sequence[str]) -> str:
    """The device of a worker: the names of a pool's workers end with consecutive numbers."""
    return device_ids[int(name.rpartition("-")[2]) % len(device_ids)]


def prepare(backend: str, device_id: str) -> None:
    """Choose the device; on a CPU, BLAS uses one thread per call, as in all processes."""
    logging.getLogger("nnabla").setLevel(logging.WARNING)
    from threadpoolctl import threadpool_limits

    from utils.training.device import set_context

    set_context(backend, device_id)
    threadpool_limits(1, "blas")


# ---------------------------------------------------------------- a job

_alone = threading.Lock()
"""nnabla's parameters and this program's log belong to the whole process."""


def work(setup: Setup, job: Callable[[Trial], Any]) -> Outcome:
    """Compute a job; what it writes stays under temporary names in the output folder."""
    from utils.run.handover import take_over

    with _alone, cores.hold_core(), _collected() as messages:
        return _outcome(_opened(setup, lambda: take_over(setup.folder)), job, messages)


def work_beside(setup: Setup, job: Callable[[Trial], Any]) -> Outcome:
    """As `work`, in a process that this program did not start.

    Raises:
        UserError: it does not see the output folder, as a worker that came later may not.
    """
    if not has_claim(OutputPaths(setup.root).lock, setup.claim):
        raise UserError(
            f"a Dask worker on {socket.gethostname()} does not see {setup.root}, which all workers "
            "saw at the start; start workers only where it is seen, and give the same command again"
        )
    prepare(setup.backend, setup.options.device_ids[0])
    return work(setup, job)


def work_apart(
    setup: Setup,
    job: Callable[[Trial], Any],
    reads: Mapping[str, bytes],
    images: dict[str, bytes],
) -> Outcome:
    """Compute a job on a machine without access to the output folder.

    Args:
        setup: of the trial; its folders do not exist here.
        job: to compute.
        reads: content of the files that it reads, by path under the output folder.
        images: of `handover.sent`.
    """
    from utils.run.handover import unpacked

    prepare(setup.backend, setup.options.device_ids[0])
    with _alone, _collected() as messages:
        opened = _opened(setup, lambda: unpacked(images), apart=True)
        with _files(opened.output.root, reads):
            outcome = _outcome(opened, job, messages)
            written = {p.path: p.temporary for p in outcome.files if p.temporary}
            contents = {path: temporary.read_bytes() for path, temporary in written.items()}
        return replace(outcome, contents=contents)


@contextmanager
def _files(root: Path, reads: Mapping[str, bytes]) -> Iterator[None]:
    """Write files under a folder of this process, and remove them afterwards."""
    try:
        for name, content in reads.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        yield
    finally:
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _outcome(opened: _Opened, job: Callable[[Trial], Any], messages: _Messages) -> Outcome:
    result, error = None, None
    try:
        result = job(opened.trial)
    except (UserError, OSError, MemoryError) as raised:
        error = raised
    finally:
        files = opened.output.take_pending()
    return Outcome(
        result=result,
        files=files,
        messages=tuple(messages.lines),
        error=error,
        process=f"{socket.gethostname()} {os.getpid()}",
        memory=peak_memory(),
    )


class _Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@contextmanager
def _collected() -> Iterator[_Messages]:
    messages, before = _Messages(), (log.handlers, log.level, log.propagate)
    log.handlers, log.propagate = [messages], False
    log.setLevel(logging.DEBUG)
    try:
        yield messages
    finally:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])


@dataclass(frozen=True)
class _Opened:
    """A trial that this process works on.

    Attributes:
        trial: its network keeps its graphs from job to job.
        output: the folder that it writes into.
        apart: the folder in place of the output folder, on a machine without access to it.
    """

    trial: Trial
    output: DeferredFolder
    apart: tempfile.TemporaryDirectory[str] | None


_latest: dict[Setup, _Opened] = {}
"""The trial that this process worked on last."""


def _opened(setup: Setup, load: Callable[[], TransferredTrial], apart: bool = False) -> _Opened:
    if setup not in _latest:
        from utils.training.device import release_memory

        _latest.clear()
        release_memory()  # before there are the graphs of another trial
        folder = tempfile.TemporaryDirectory(prefix="data_cleansing_") if apart else None
        output = DeferredFolder(setup.root, setup.claim)
        if folder:
            output = DeferredFolder(Path(folder.name))
        _latest[setup] = _Opened(_trial(setup, load(), output), output, folder)
    return _latest[setup]


def _trial(setup: Setup, taken: TransferredTrial, output: DeferredFolder) -> Trial:
    from utils.training.models import find_model
    from utils.training.trial import make_trial

    trial = make_trial(
        options=setup.options,
        seed=setup.seed,
        data=taken.data,
        steps=taken.steps,
        model=setup.net or find_model(setup.options.model),
        n_classes=setup.n_classes,
        damping=setup.damping,
        folder=output,
    )
    if trial.network.graph != setup.graph:
        raise UserError(
            f"--model {setup.options.model}: a worker has another version of the net than this "
            "process, or builds another one each time; restart the workers"
        )
    return trial
