"""The workers of an existing Dask cluster: `--dask_scheduler`.

Whether the output folder is shared is found out once, at the start. If all workers see it they
read there and write there under temporary names. If not, a task carries the files that it reads,
its outcome those that it wrote, and the images are sent once a trial; a worker keeps those of the
trial that it works on. The scheduler gives the tasks of a worker that died to another one.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.kernels.blas import VARIABLE, advised_kernels
from utils.output.lock import has_claim
from utils.output.manifest import versions_here
from utils.output.paths import OutputPaths
from utils.run.handover import sent
from utils.run.tasks import Job
from utils.run.worker_process import Outcome, Setup, work_apart, work_beside
from utils.run.workers import HandingOver
from utils.signals import stop_if_asked
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

SECONDS = 10
"""How long the scheduler may take to answer, and to have a worker."""
INSTALL = "pip install -r requirements-dask.txt"
PROGRAM = Path(__file__).parents[2]


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
        seen = client.run(has_claim, OutputPaths(root.absolute()).lock, claim)
        self.shared = all(seen.values())
        log.info("Dask: %d workers, %s", len(seen), _how(self.shared))

    def slots(self) -> int:
        """A job for each worker, and one that is there as soon as one of them has finished."""
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
            UserError: the scheduler is gone, or a job has ended several workers.
        """
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        remedy = "what is finished is kept, the same command goes on from there"
        try:
            yield self
        except KilledWorker as error:
            stop_if_asked()  # what ends the run may have ended the workers or the scheduler first
            raise UserError(
                f"a job ended {error.allowed_failures + 1} of the cluster's workers, maybe for "
                f"want of memory; {remedy}"
            ) from error
        except (CancelledError, OSError) as error:  # OSError: of the scheduler, or of a file
            stop_if_asked()
            of_dask = isinstance(error, (CancelledError, CommClosedError))
            if of_dask or self._client.status != "running":
                raise UserError(f"the Dask scheduler is gone; {remedy}") from error
            raise
        finally:
            self._executor.shutdown(wait=False)


def _how(shared: bool) -> str:
    return "which share the output folder" if shared else "to which images and files are sent"


def _same(content: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """A task, because the scheduler can repeat it where a worker that held its result dies."""
    return content


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at an address, with a worker at least.

    Raises:
        UserError: Dask is not installed, no scheduler answers, it has no worker, or its workers
            do not have this program.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise UserError(f"--dask_scheduler: Dask is not installed ({INSTALL})") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    option = f"--dask_scheduler {address}"
    try:
        client = distributed.Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        what = f"no scheduler answers ({' '.join(str(error).split())[:150]})"
        raise UserError(f"{option}: {what}; start one with dask scheduler") from error
    with client:
        _check_workers(client, option)
        yield client


def _check_workers(client: Any, option: str) -> None:
    """Raise a UserError if the scheduler has no worker, or one cannot import this program."""
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except (TimeoutError, asyncio.TimeoutError) as error:
        command = f"python -m dask worker {client.scheduler.address} --nthreads 1"
        remedy = f"start some in {PROGRAM} with {command}"
        raise UserError(f"{option}: has no workers; {remedy}") from error
    try:
        found, advised = client.run(versions_here), client.run(advised_kernels)
    except ModuleNotFoundError as error:
        remedy = f"start them in {PROGRAM} with python -m dask worker, or with it in PYTHONPATH"
        raise UserError(f"{option}: its workers have no {error.name}; {remedy}") from error
    warn_of_others(found, advised)
    if any(n > 1 for n in client.ncores().values()):
        log.warning("Dask workers with several threads compute one job at a time: --nthreads 1")


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
