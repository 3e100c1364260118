"""Who computes the cells: this process, N processes of this machine, or a Dask cluster.

A backend is a generator: it takes cells and yields (cell, outcome, attempts) as they are done, in any order. It
never writes: the one process that asked for the cells keeps the store. A worker that dies takes nothing with it
but the cell it was at, which is tried once more, and then is a failure.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ..runtime import SeminarError
from .bench_cells import Cell, Setup
from .bench_line import Line

Outcome = dict[str, Any]
Done = tuple[Cell, Outcome, int]
Check = Callable[[], object]
Backend = Callable[[Sequence[Cell], Setup, Check], Iterator[Done]]
ATTEMPTS = 2
GOES_ON = "the same command goes on where this stopped"
ANSWER = 5  # seconds a scheduler has
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def nothing() -> None:
    """No check."""


def here(cells: Sequence[Cell], setup: Setup, check: Check = nothing) -> Iterator[Done]:
    """In this process, one after another, after the check."""
    from .bench_run import run_cell

    check()
    for cell in cells:
        yield cell, run_cell(cell, setup), 1


class _Worker:
    """A process and the pipe to it. number: of its share; cell: what it is at, with the number of this attempt."""

    def __init__(self, setup: Setup, number: int):
        self.number = number
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and CUDA's state
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        with _environment(ONE_THREAD):
            self.process.start()
        theirs.close()  # so that its death is seen as the end of the pipe
        self.cell: tuple[Cell, int] | None = None
        self.started = False

    def give(self, cell: Cell, attempt: int) -> None:
        self.cell = (cell, attempt)
        try:
            self.pipe.send(cell)
        except OSError:  # it died meanwhile; the next wait finds the end of the pipe
            pass

    def take(self) -> Outcome | None:
        """What it sends: an outcome, or a first word; None when it has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)
            return None

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join(10)


def _serve(pipe: Connection, setup: Setup) -> None:
    """A worker's life: cells in, outcomes out, until the pipe ends because nobody is there any more."""
    from .bench_run import keep_to_one_thread, run_cell

    keep_to_one_thread()
    try:
        pipe.send({"ready": True})
        while True:
            pipe.send(run_cell(pipe.recv(), setup))
    except (EOFError, OSError, KeyboardInterrupt):
        return


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that start within."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def local_workers(cells: Sequence[Cell], setup: Setup, count: int, check: Check = nothing) -> Iterator[Done]:
    """In `count` processes of this machine, each with one thread.

    check: made while the workers start, before any has a cell; what it raises ends them. Raises SeminarError when
    workers die before they are ready, twice in a row.
    """
    count = min(count, len(cells))
    line = Line(cells, max(count, 1))
    workers = [_Worker(setup, number) for number in range(count)]
    stillborn = 0
    try:
        check()
        while workers:
            for worker in [_worker_of(pipe, workers) for pipe in wait([worker.pipe for worker in workers])]:
                outcome = worker.take()
                if outcome is None:
                    workers.remove(worker)
                    stillborn = 0 if worker.started else stillborn + 1
                    yield from _mourn(worker, line, stillborn)
                    if line:
                        workers.append(_Worker(setup, worker.number))
                    continue
                if worker.cell:
                    yield worker.cell[0], outcome, worker.cell[1]
                worker.started, worker.cell, stillborn = True, None, 0
                if turn := line.take(worker.number):
                    worker.give(*turn)
                else:
                    workers.remove(worker)
                    worker.stop()
    finally:
        for worker in workers:
            worker.stop()


def _worker_of(pipe: Any, workers: Sequence[_Worker]) -> _Worker:
    return next(worker for worker in workers if worker.pipe is pipe)


def _mourn(worker: _Worker, line: Line, stillborn: int) -> Iterator[Done]:
    """A worker has died: its cell goes first in its share once more, or becomes a failure."""
    code = worker.process.exitcode
    if worker.cell is None:
        if stillborn >= ATTEMPTS:
            raise SeminarError(f"the workers die before they can take a cell (exit code {code}): see above why")
        return
    cell, attempt = worker.cell
    if attempt < ATTEMPTS:
        line.again(worker.number, cell, attempt + 1)
        return
    yield cell, {"error": f"its worker died {attempt} times at this cell (the last exit code is {code})"}, attempt


def dask_cluster(
    cells: Sequence[Cell],
    setup: Setup,
    url: str,
    check: Check = nothing,
    patience: float = 60,
    window: int = 1000,
) -> Iterator[Done]:
    """On the workers of a Dask scheduler, given by its address ("tcp://host:8786").

    patience: seconds to wait for a first worker, and again where all are lost; the scheduler must answer at once.
    Raises SeminarError when distributed is not installed, nobody answers, there is no worker, the workers have
    another version of the course, or none of them is left.
    """
    check()
    client = _connect(url, patience)
    try:
        before = client.run_on_scheduler(_set_allowed_failures, 0)  # we count ourselves
        try:
            yield from _submit_all(client, cells, setup, patience, window)
        finally:
            with suppress(Exception):  # it may be gone
                client.run_on_scheduler(_set_allowed_failures, before)
    finally:
        client.close(timeout=2)


def _connect(url: str, patience: float):
    try:
        from distributed import Client
    except ImportError as error:
        raise SeminarError("--scheduler needs dask: pip install 'seminar-utils[dask]'") from error
    try:
        client = Client(url, timeout=ANSWER, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise SeminarError(
            f"no Dask scheduler answers at {url!r} within {ANSWER} s ({type(error).__name__})"
        ) from error
    try:
        client.wait_for_workers(1, timeout=patience)
        theirs = client.run(_version_there)
    except TimeoutError as error:
        client.close(timeout=2)
        raise SeminarError(
            f"the Dask scheduler at {url} has no workers: dask worker {url} --nthreads 1"
        ) from error
    except Exception as error:
        client.close(timeout=2)
        raise SeminarError(f"the workers of {url} can't import seminar_utils: {error}") from error
    strange = {version for version in theirs.values() if version != _version_there()}
    if strange:
        client.close(timeout=2)
        raise SeminarError(f"the workers of {url} have version {sorted(strange)}, here is {_version_there()}")
    return client


def _version_there() -> str:
    from .. import __version__
    from .bench_cells import BENCH_VERSION

    return f"{__version__}, bench {BENCH_VERSION}"


def _set_allowed_failures(number: int, dask_scheduler: Any = None) -> int:
    """On the scheduler: how many deaths of a worker a task survives; returns what it was."""
    before = dask_scheduler.allowed_failures
    dask_scheduler.allowed_failures = number
    return before


def _submit_all(client, cells: Sequence[Cell], setup: Setup, patience: float, window: int) -> Iterator[Done]:
    """Keep up to `window` cells with the scheduler, and yield what comes back.

    A dying worker may have had more than one cell assigned, and one of them is to blame. All are tried again at
    the end, one at a time, so that a second death is surely their own.
    """
    todo, suspects = deque((cell, 1) for cell in cells), deque()
    finished, running = queue.Queue(), {}
    while todo or running or suspects:
        while (todo and len(running) < window) or (suspects and not running):
            cell, attempt = (todo or suspects).popleft()
            future = client.submit(_run_there, cell, setup, key=("bench", cell.key, time.time_ns()), pure=False)
            running[future.key] = (cell, attempt, future)
            future.add_done_callback(finished.put)
        try:
            future = finished.get(timeout=patience)
        except queue.Empty:
            _check_alive(client, patience)
            continue
        cell, attempt, _ = running.pop(future.key)
        outcome = _outcome_of(future)
        if outcome is None and attempt < ATTEMPTS:
            suspects.append((cell, attempt + 1))
        else:
            yield cell, outcome or {"error": f"its worker died {attempt} times at this cell"}, attempt


def _run_there(cell: Cell, setup: Setup) -> Outcome:
    """On a worker of the cluster."""
    from .bench_run import run_cell

    return run_cell(cell, setup)


def _outcome_of(future) -> Outcome | None:
    """What a cell came to; None when its worker died. Raises SeminarError when the scheduler is gone."""
    from distributed import KilledWorker

    if future.status not in ("finished", "error"):  # cancelled, lost: no fault of the cell
        raise SeminarError(f"the Dask scheduler is gone ({future.status}); {GOES_ON}")
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return None
    return {"error": f"{type(error).__name__} on its way through Dask: {error}"} if error else future.result()


def _check_alive(client, patience: float) -> None:
    """Raise SeminarError when the scheduler is gone, or has no worker left and gets none."""
    try:
        client.wait_for_workers(1, timeout=patience)
    except (TimeoutError, OSError) as error:
        raise SeminarError(f"the Dask cluster has no workers any more; {GOES_ON}") from error


def backend(workers: int = 0, scheduler: str | None = None) -> Backend:
    """The backend that was asked for: a cluster, `workers` processes, or this one (0). Raises SeminarError.

    It makes the check it is given before a cell runs.
    """
    if scheduler is not None:
        if workers:
            raise SeminarError("either --workers (processes of this machine) or --scheduler (a Dask cluster)")
        return lambda cells, setup, check=nothing: dask_cluster(cells, setup, scheduler, check)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise SeminarError(f"workers is a number of processes, 0 for this one, got {workers!r}")
    if not workers:
        return here
    return lambda cells, setup, check=nothing: local_workers(cells, setup, workers, check)
