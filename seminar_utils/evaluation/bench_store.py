"""A benchmark's rows on the disk: who may write, what was left by a crash, which cells are done.

One file a benchmark (`runs/bench/NAME.jsonl`), in the format of the results store. One process writes it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..runtime import SeminarError, runs_dir
from .bench_cells import BENCH_VERSION, Cell
from .results import SCHEMA, ResultsStore, no_collection, parse_rows

Row = dict[str, Any]


def default_store(name: str) -> Path:
    """Where the rows of a benchmark go: `runs/bench/NAME.jsonl`."""
    return runs_dir() / "bench" / f"{name}.jsonl"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the store alone, until the block or the process ends, however it ends.

    Raises SeminarError, with who holds it, when another process does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            open(path, "ab").close()  # fails now for a folder, or a file that is not ours
        file = open(path.with_name(path.name + ".lock"), "a+", encoding="utf-8")
    except OSError as error:
        raise SeminarError(f"the store {path} can't be written: {error.strerror}") from error
    with file:
        if not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise SeminarError(f"{path.name} is being written by another run ({holder}); wait for it, or stop it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    """The system's lock on an open file: it goes when the process goes, by kill -9 too."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1000)  # past the words, so that others can read them
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def recover(path: Path) -> str | None:
    """Cut a half-written last line off (a whole one without its end is completed); says what it did, or None.

    Such a line is no row: its cell is run again.
    """
    if not path.exists():
        return None
    with open(path, "r+b") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        tail = content[start:]
        if not tail:
            return None
        try:
            whole = isinstance(json.loads(tail), dict)
        except ValueError:  # also what is no UTF-8
            whole = False
        if whole:
            file.write(b"\n")
        else:
            file.truncate(start)
        file.flush()
        os.fsync(file.fileno())
    if whole:
        return f"{path.name}: the last row lacked its end of line; completed"
    return f"{path.name}: a half-written last line ({len(tail)} bytes) was cut off; its cell is run again"


@no_collection()
def read_store(path: Path, experiment: str) -> list[Row]:
    """All rows of one benchmark, oldest first.

    Raises SeminarError for rows of another version, whose numbers can't stand beside new ones.
    """
    if not path.exists():
        return []
    found, broken = parse_rows(path.read_text(encoding="utf-8", errors="replace"))
    rows = [row for row in found if row]
    schemas = {row.get("schema") for row in rows} - {SCHEMA}
    if schemas:
        raise _other_version(path, f"rows of store version {sorted(map(str, schemas))}, this is {SCHEMA}")
    rows = [row for row in rows if row.get("experiment") == experiment]
    engines = {row.get("bench") for row in rows} - {BENCH_VERSION}
    if engines:
        raise _other_version(path, f"rows of bench version {sorted(map(str, engines))}, this is {BENCH_VERSION}")
    if broken[:-1] or (broken and not _is_last(broken[0], found)):
        raise SeminarError(f"{path.name}: line {broken[0]} is no row, and it is not the last: a damaged file?")
    return rows


def _is_last(number: int, found: Sequence[Row]) -> bool:
    return not any(found[number:])


def _other_version(path: Path, what: str) -> SeminarError:
    return SeminarError(f"{path} was written by another version of the course: {what}; take another --output")


def newest(rows: Sequence[Row]) -> dict[str, Row]:
    """cell key -> its last row: a failure that was retried counts no more."""
    return {row["cell"]: row for row in rows}


def pending(cells: Sequence[Cell], rows: Sequence[Row], retry_failed: bool = False) -> list[Cell]:
    """The cells that have no row, with `retry_failed` also those whose last row is a failure."""
    last = newest(rows)
    return [cell for cell in cells if cell.key not in last or (retry_failed and last[cell.key].get("error"))]


def write(store: ResultsStore, experiment: str, cell: Cell, outcome: dict[str, Any], attempts: int) -> Row:
    """Append the row of a cell; a failure has an `error` and no metrics."""
    more = {"cell": cell.key, "bench": BENCH_VERSION, "weights": cell.weights, "attempts": attempts}
    more |= {key: outcome[key] for key in ("error", "reasons", "fit_seconds") if outcome.get(key)}
    more |= outcome.get("ran_on", {})
    told = cell.params() | outcome.get("params", {})
    numbers = [outcome.get(key, {}) for key in ("metrics", "intervals")]
    return store.append(experiment, told, *numbers, cell.seed, outcome.get("seconds"), more)


def mixture(rows: Sequence[Row]) -> str | None:
    """A sentence when rows come from several commits or versions of torch, else None."""
    origins = {(row["commit"], row["versions"].get("torch")) for row in rows}
    if len(origins) < 2:
        return None
    told = ", ".join(sorted(f"commit {commit} with torch {version}" for commit, version in origins))
    return f"the rows come from {len(origins)} versions of the code ({told})"
