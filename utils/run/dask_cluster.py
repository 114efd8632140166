"""The workers of an existing Dask cluster: `--dask_scheduler`.

Whether the output folder is shared is found out once, at the start. If all workers see it they
read there and write there under temporary names. If not, a task carries the files that it reads,
its outcome those that it wrote, and the images are sent once a trial; a worker keeps those of the
trial that it works on. The scheduler gives the tasks of a worker that died to another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import logging
import pickle
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import check_regular
from utils.kernels.blas import VARIABLE, advised_kernels
from utils.output.lock import has_claim
from utils.output.manifest import versions_here
from utils.output.paths import OutputPaths
from utils.run.handover import sent
from utils.run.tasks import Job
from utils.run.worker_process import Outcome, Setup, work_apart, work_beside
from utils.run.workers import KEPT, HandingOver
from utils.signals import stop_if_asked
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

SECONDS = 30
"""How long the scheduler may take to answer, and to have a worker."""
INSTALL = "pip install -r requirements-dask.txt"
PROGRAM = Path(__file__).parents[2]
START = "python -m dask"
"""The script `dask` does not look for modules in the folder that it is started in."""
OTHER_PROGRAM = re.compile(
    "cannot import name|Can't get attribute|deserialization of the task graph|UnpicklingError"
)
"""What Python and Dask say where programs or libraries of different versions meet."""
PACKAGES = ("influence_functions", "sgd_influence", "utils")


class Cluster(HandingOver):
    """The workers of a Dask cluster; each works on one job at a time.

    Args:
        client: connected to its scheduler.
        setup: as in `HandingOver`.
        root: the output folder.
        claim: as in `Setup`.
    """

    def __init__(
        self,
        client: Any,
        setup: Callable[[Trial, Path], Setup],
        root: Path,
        claim: bytes,
    ) -> None:
        super().__init__(setup)
        self._client = client
        self._executor = client.get_executor(pure=False)
        self._images: dict[int, Any] = {}
        lock = OutputPaths(root.absolute()).lock
        seen = client.run(has_claim, lock, claim, on_error="return")
        self.shared = all(there is True for there in seen.values())
        log.info("Dask: %d workers, %s", len(seen), _how(self.shared))

    def slots(self) -> int:
        """A job for each worker, and one more, ready for the first worker that finishes."""
        return len(self._client.ncores()) + 1

    def opened(self, trial: Trial) -> Trial:
        """Hand the trial over; sent to the scheduler if the workers do not see the folder."""
        mapped = super().opened(trial)
        if not self.shared:
            content = sent(self.setups[trial.seed].folder)
            self._images[trial.seed] = self._client.submit(_same, content, pure=False)
        return mapped

    def closed(self, seed: int) -> None:
        """Remove what was handed over."""
        self._images.pop(seed, None)
        super().closed(seed)

    def submit(self, trial: Trial, job: Job) -> Future[Outcome]:
        """Give the job to the scheduler."""
        setup = self.setups[trial.seed]
        if self.shared:
            return self._executor.submit(work_beside, setup, job.compute)
        root = trial.folder.root
        reads = {p.relative_to(root).as_posix(): p.read_bytes() for p in job.reads}
        return self._executor.submit(
            work_apart, setup, job.compute, reads, self._images[trial.seed]
        )

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Give back what is not finished when the block ends.

        Raises:
            UserError: the scheduler is gone, a job has ended several workers, or one of them
                lacks something.
        """
        try:
            yield self
        except Exception as error:
            stop_if_asked()  # what ends the run may have ended the workers or the scheduler first
            if problem := self._problem(error):
                raise UserError(f"{problem}; {KEPT}") from error
            raise
        finally:
            self._executor.shutdown(wait=False)

    def _problem(self, error: Exception) -> str:
        """What the cluster lacks; empty if the failure has another cause."""
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        if isinstance(error, UserError):
            return ""
        if isinstance(error, KilledWorker):
            ended = error.allowed_failures + 1
            return f"a task killed {ended} of the cluster's workers, perhaps for lack of memory"
        if isinstance(error, (CancelledError, CommClosedError)) or self._client.status != "running":
            return "the Dask scheduler is gone"
        return f"the Dask cluster {lack}" if (lack := lack_of(error)) else ""


def _how(shared: bool) -> str:
    return "which share the output folder" if shared else "to which images and files are sent"


def _same(content: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """A task, because the scheduler can repeat it where a worker that held its result dies."""
    return content


@contextmanager
def connected(where: str) -> Iterator[Any]:
    """A client of a scheduler, with a worker at least.

    Args:
        where: the scheduler's address, or the file that it writes its address into.

    Raises:
        UserError: Dask is not installed, no scheduler answers, it has no worker, or it or one of
            its workers does not have this program.
    """
    option = f"--dask_scheduler {where}"
    distributed = _distributed()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    warnings.filterwarnings("ignore", "Mismatched versions", UserWarning)  # warn_of_others does
    try:
        client = distributed.Client(address_of(where), timeout=SECONDS, set_as_default=False)
    except UserError:
        raise
    except Exception as error:  # OSError, ValueError, TypeError, and what other versions raise
        stop_if_asked()
        # what another program sends is taken for the length of a message
        foreign = isinstance(error, MemoryError)
        reason = "another program answers at this address" if foreign else _in_short(error)
        raise UserError(
            f"{option}: no scheduler answers ({reason}); start one with {START} scheduler"
        ) from error
    with client:
        _check(client, option)
        yield client


def _check(client: Any, option: str) -> None:
    """Raise a UserError if the cluster cannot run this program, or goes away meanwhile."""
    try:
        _check_scheduler(client, option)
        _check_workers(client, option)
    except UserError:
        raise
    except Exception as error:
        stop_if_asked()
        what = f"the cluster does not answer ({_in_short(error)})"
        raise UserError(
            f"{option}: {what}; look at what its scheduler and workers print"
        ) from error


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        missing = "" if error.name == "distributed" else f": there is no {error.name}"
        raise UserError(f"--dask_scheduler: Dask is not installed{missing} ({INSTALL})") from error
    except Exception as error:  # of versions that do not fit together
        what = f"Dask cannot be imported ({_in_short(error)})"
        raise UserError(f"--dask_scheduler: {what}; {INSTALL}") from error


def address_of(where: str) -> str:
    """The address that is meant: `where` itself, or what a scheduler's file of this name holds.

    A file that is not there yet is waited for.

    Raises:
        UserError: it is not there after a while, or holds no address.
    """
    file = Path(where)
    if "://" in where or not (file.suffix == ".json" or file.is_file()):
        return where
    end = time.monotonic() + SECONDS
    while True:
        try:
            check_regular(file)
            return str(json.loads(file.read_bytes())["address"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            if time.monotonic() > end:
                reason = error.strerror if isinstance(error, OSError) else _in_short(error)
                what = f"gives no scheduler's address ({reason})"
                remedy = f"start one with {START} scheduler --scheduler-file {where}"
                raise UserError(f"--dask_scheduler {where}: {what}; {remedy}") from error
        stop_if_asked()
        time.sleep(0.1)


def _check_scheduler(client: Any, option: str) -> None:
    """Raise a UserError if the scheduler cannot run this program: it unpacks what is submitted."""
    try:
        client.run_on_scheduler(versions_here)
    except Exception as error:
        stop_if_asked()
        what = f"the scheduler {lack_of(error) or _cannot(error)}"
        raise UserError(f"{option}: {what}; {_remedy('scheduler')}") from error


def _check_workers(client: Any, option: str) -> None:
    """Raise a UserError if the scheduler has no worker, or one cannot run this program."""
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except (TimeoutError, asyncio.TimeoutError) as error:
        command = f"{START} worker {client.scheduler.address} --nthreads 1"
        remedy = f"start some in {PROGRAM} with {command}"
        raise UserError(f"{option}: has no workers; {remedy}") from error
    found = client.run(versions_here, on_error="return")
    programs, here = client.run(program_here, on_error="return"), program_here()
    for worker, versions in found.items():
        if what := _unfit(versions) or _unfit(programs.get(worker, ""), here):
            raise UserError(f"{option}: the worker {worker} {what}; {_remedy('worker')}")
    warn_of_others(found, client.run(advised_kernels))
    if any(n > 1 for n in client.ncores().values()):
        log.warning("Dask workers with several threads compute one task at a time: --nthreads 1")


def _unfit(answer: object, program: str = "") -> str:
    """Why a worker with this answer cannot be used: it failed, or has another `program`."""
    if isinstance(answer, Exception):
        return lack_of(answer) or _cannot(answer)
    return "has another version of this program" if program and answer != program else ""


def program_here() -> str:
    """A hash of this program's modules."""
    digest = hashlib.sha256()
    for path in sorted(path for name in PACKAGES for path in (PROGRAM / name).rglob("*.py")):
        digest.update(path.relative_to(PROGRAM).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def lack_of(error: BaseException) -> str:
    """What is missing on a machine that cannot unpack or import something; empty for other errors.

    Dask passes on the error itself, or an error that has it as its cause or in its text.
    """
    text = f"{error!r} {error.__cause__!r}"
    missing = re.search(r"(?:No module named|PackageNotFoundError)\W+([\w.-]+)", text)
    if missing:
        return f"has no {missing[1]}"
    if isinstance(error, (ImportError, pickle.PickleError)) or OTHER_PROGRAM.search(text):
        return f"has other versions than this machine ({_in_short(error.__cause__ or error)})"
    return ""


def _cannot(error: BaseException) -> str:
    return f"cannot run this program ({_in_short(error)})"


def _in_short(error: BaseException) -> str:
    return " ".join((str(error) or repr(error)).split())[:150]


def _remedy(part: str) -> str:
    there = f"start it in {PROGRAM} with {START} {part}, or with PYTHONPATH={PROGRAM}"
    return f"{there}, and with the requirements that are installed here"


def warn_of_others(found: Mapping[str, Mapping[str, str]], advised: Mapping[str, str]) -> None:
    """Warn of workers whose libraries have other versions than here.

    A worker has NumPy loaded before this program: it takes the kernels of its BLAS from its
    environment alone.

    Args:
        found: versions by address.
        advised: the kernels that a worker should have, by address; empty where it has them.
    """
    here = versions_here()
    for worker, versions in found.items():
        other = [f"{k} {v}" for k, v in versions.items() if here.get(k) != v]
        remedy = f"; start it with {VARIABLE}={advised[worker]}" if advised[worker] else ""
        if other:
            differing = ", ".join(other)
            log.warning("Dask worker %s has %s: last bits may differ%s", worker, differing, remedy)
