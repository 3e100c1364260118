"""Run a benchmark: each cell's row is in the store at once, and a run that was killed goes on where it was.

On one machine: `seminar bench run SPEC.toml --workers 2`. With more machines, start a Dask scheduler and workers
(`pip install 'seminar-utils[dask]'`), all with this course installed and the same folders in sight:

    dask scheduler                                       # says its address, tcp://HOST:8786
    dask worker tcp://HOST:8786 --nthreads 1 --nworkers 8
    seminar bench run SPEC.toml --scheduler tcp://HOST:8786

On a cluster with SLURM, dask-jobqueue (`pip install dask-jobqueue`) submits the workers as jobs; leave this
running on the login node, in tmux or as a job of its own, and run the benchmark beside it:

    from dask_jobqueue import SLURMCluster
    cluster = SLURMCluster(cores=8, processes=8, memory="32GB", walltime="02:00:00",
                           job_script_prologue=["source .venv/bin/activate", "export SEMINAR_DATA=/path/to/data"])
    cluster.adapt(minimum=1, maximum=64)                 # as many workers as there is work
    print(cluster.scheduler_address)

A job that reaches its time limit costs nothing but the cells it was at. Numbers do not depend on the backend: a
cell is computed by one thread, from its own seed. GPUs: one worker for each, with CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .bench_backends import Done, backend, nothing
from .bench_cells import Cell
from .bench_spec import Spec
from .bench_store import Row, default_store, lock, mixture, newest, pending, read_store, recover, write
from .results import ResultsStore


@dataclass(frozen=True)
class Summary:
    """Where a benchmark stands: numbers of cells, and the failures' rows."""

    cells: int
    done: int
    failures: list[Row]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """Cells without a row."""
        return self.cells - self.done - len(self.failures)

    def __str__(self) -> str:
        lines = [f"{self.cells} cells: {self.done} done, {len(self.failures)} failed, {self.missing} to do"]
        kinds: dict[str, int] = {}
        for row in self.failures:
            kinds[row["error"]] = kinds.get(row["error"], 0) + 1
        lines += [f"  {count} x {error}" for error, count in sorted(kinds.items(), key=lambda item: -item[1])[:10]]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def run_bench(
    spec: Spec,
    output: str | Path | None = None,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    check: bool = True,
) -> Summary:
    """Run the cells of `spec` that have no row yet, and say where it stands.

    Args: output: the file of rows (default `runs/bench/NAME.jsonl`); workers, scheduler: see `bench_backends`;
    limit: at most so many cells now; retry_failed: failures again. check: try the combinations first.
    Raises SeminarError for what can be known beforehand: methods that do not fit, data that is not here, a store
    that another run holds or another version wrote, a scheduler that does not answer.
    """
    path = Path(output) if output else default_store(spec.name)
    compute = backend(workers, scheduler)
    with lock(path):
        told = recover(path)
        if told:
            print(told, file=sys.stderr)
        todo = pending(spec.cells, read_store(path, spec.experiment), retry_failed)[:limit]
        if todo:
            found = compute(todo, spec.setup, (lambda: check_combinations(todo, spec)) if check else nothing)
            _run(spec, len(todo), found, ResultsStore(path), progress)
        return status(spec, path)


def check_combinations(cells: list[Cell], spec: Spec) -> None:
    """Raise SeminarError for what would fail later: see `bench_check.check_cells`."""
    from .bench_check import check_cells

    check_cells(cells, spec.setup)


def _run(spec: Spec, count: int, found: Iterator[Done], store: ResultsStore, progress: bool) -> None:
    from tqdm import tqdm

    quiet = 0.1 if sys.stderr.isatty() else 10  # seconds between two states of the bar; a log needs few
    failed = 0
    with tqdm(total=count, unit="cell", disable=not progress, mininterval=quiet, desc=spec.name) as bar:
        for cell, outcome, attempts in found:
            write(store, spec.experiment, cell, outcome, attempts)
            failed += bool(outcome.get("error"))
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()


def status(spec: Spec, output: str | Path | None = None) -> Summary:
    """Where the benchmark stands, from its store; changes nothing. Raises SeminarError as `read_store` does."""
    path = Path(output) if output else default_store(spec.name)
    last = newest(read_store(path, spec.experiment))
    mine = [last[cell.key] for cell in spec.cells if cell.key in last]
    failures = [row for row in mine if row.get("error")]
    others = len(last) - len(mine)
    notes = [f"the store holds {others} more rows, of cells that are not in this spec"] if others else []
    notes += [note] if (note := mixture(mine)) else []
    return Summary(len(spec.cells), len(mine) - len(failures), failures, tuple(notes))
