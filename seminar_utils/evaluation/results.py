"""The results store: one row per measured run, appended and never changed; every printed number is read here.

A row is one line of JSON: what was run (experiment, params, seed), what came out (metrics, intervals),
and what it ran on (profile, device, versions, commit, seconds). Rows that ship with the course lie in
`data/results/`, one file for each lesson; what you run yourself is appended to `runs/results.jsonl` (or
to the file named by SEMINAR_RESULTS). A reader sees both.
"""

from __future__ import annotations

import functools
import gc
import json
import math
import os
import platform
import subprocess
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from ..runtime import SeminarError, pick_device, profile, repository, runs_dir, shipped_dir

SCHEMA = 1
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "medmnist", "seminar-utils")


def shipped_results() -> list[Path]:
    """The files of rows that ship with the course."""
    return sorted((shipped_dir() / "results").glob("*.jsonl")) if repository() else []


def user_results() -> Path:
    """The file new rows go to: SEMINAR_RESULTS, else `runs/results.jsonl` in the checkout or the folder."""
    return Path(os.environ.get("SEMINAR_RESULTS") or runs_dir() / "results.jsonl")


@functools.cache
def code_commit() -> str:
    """The checkout's commit, with `+` when the package's code differs from it; `unknown` outside of git."""
    root = repository()
    if root is None:
        return "unknown"
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=20
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "seminar_utils"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else "unknown"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _plain(value: Any) -> Any:
    """Numbers as Python's own, NaN and infinities as None (JSON has neither)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lookup(row: Mapping[str, Any], dotted: str) -> Any:
    """`params.batch` -> row["params"]["batch"]; None where nothing is there."""
    for key in dotted.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


class ResultsStore:
    """Append-only rows in a JSON-lines file.

    Args: path: one file to read and write. Without it, rows are read from the shipped files and the
    user's, and appended to the user's. A half-written last line (a crash) is skipped with a warning and
    kept; the next row starts on a line of its own.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path else user_results()
        shipped = shipped_results() if path is None else []
        self.sources = list(dict.fromkeys([*(file.resolve() for file in shipped), self.path.resolve()]))

    def append(
        self,
        experiment: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        intervals: Mapping[str, Sequence[float]] | None = None,
        seed: int | Sequence[int] | None = None,
        seconds: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write one row, with where and on what it ran, safely on the disk when this returns.

        more: further fields of the row, or device, versions and commit where another machine did the work.
        Raises SeminarError when the file can't be written.
        """
        more = _plain(more or {})
        row = {
            "schema": SCHEMA,
            "id": uuid.uuid4().hex[:12],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **_plain(dict(experiment=experiment, params=params, metrics=metrics, intervals=intervals or {})),
            **_plain(dict(seed=seed, seconds=seconds)),
            "profile": profile(),
            "device": more.get("device") or str(pick_device()),
            "versions": more.get("versions") or versions(),
            "commit": more.get("commit") or code_commit(),
            **{key: value for key, value in more.items() if key not in ("device", "versions", "commit")},
        }
        self._write((json.dumps(row, sort_keys=False, allow_nan=False) + "\n").encode())
        return row

    def _write(self, line: bytes) -> None:
        """One write call to a file opened for appending: rows of several processes never mix."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b", buffering=0) as file:
                if file.seek(0, os.SEEK_END) and self._last_byte(file) != b"\n":
                    line = b"\n" + line
                file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise SeminarError(f"the results store {self.path} can't be written: {error.strerror}") from error

    @staticmethod
    def _last_byte(file) -> bytes:
        file.seek(-1, os.SEEK_END)
        return file.read(1)

    def rows(self, **where: Any) -> list[dict[str, Any]]:
        """The rows whose fields equal `where`, oldest first; dotted keys look inside (`params.batch`)."""
        found = [row for path in self.sources for row in self._read(path)]
        return [row for row in found if all(_lookup(row, key) == value for key, value in where.items())]

    def latest(self, **where: Any) -> dict[str, Any]:
        """The newest row that matches. Raises SeminarError when there is none."""
        rows = self.rows(**where)
        if not rows:
            raise SeminarError(f"the results store has no row with {where}; `seminar results` lists what it has")
        return max(rows, key=lambda row: row["time"])

    @staticmethod
    def _read(path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        found, strange = parse_rows(path.read_text(encoding="utf-8", errors="replace"))
        rows = [row for row in found if row.get("schema") == SCHEMA]
        strange += [number for number, row in enumerate(found, 1) if row.get("schema") != SCHEMA and row]
        for number in sorted(strange):
            warnings.warn(f"{path.name}, line {number}: half-written or foreign row skipped", stacklevel=3)
        return rows


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's search for garbage pauses: among a hundred thousand rows it costs more than all the rest."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # both together: all that is new counts as old, and is not looked through at once
        if collecting:
            gc.enable()


def parse_rows(text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """One dict a line (empty for a line that is blank or no row), and the numbers of the lines that are no rows.

    All lines at once, by orjson, which is many times as fast as line by line: a store may hold a hundred thousand.
    """
    lines = text.split("\n")
    try:
        with no_collection():
            rows = orjson.loads("[" + ",".join(line if line.strip() else "{}" for line in lines) + "]")
        if len(rows) == len(lines) and all(type(row) is dict for row in rows):
            return rows, []
    except json.JSONDecodeError:
        pass
    rows = [_row_or_none(line) for line in lines]
    return [row or {} for row in rows], [number for number, row in enumerate(rows, 1) if row is None]


def _row_or_none(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.strip() else {}
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
