"""`make course`: execute every lesson, show how far it is, and end with a table that tells the truth."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from pathlib import Path

import nbformat
from tqdm import tqdm

from ..runtime import PROFILES, SeminarError, runs_dir, unknown_name
from . import notebooks
from .runner import LIMITS, Limits, Outcome, execute

PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def course(
    profile: str = "cpu",
    only: str | None = None,
    cell_timeout: float | None = None,
    folder: Path | None = None,
    runs: Path | None = None,
) -> list[Outcome]:
    """Execute the lessons of `folder` (default `notebooks/`), write the executed copies to `runs`, print a table.

    Args: only: lessons by number or name, commas between; cell_timeout: seconds for one cell (default by profile).
    Returns one Outcome a lesson. Raises SeminarError for an unknown profile or lesson and when there is none.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    limits = limits_for(profile, cell_timeout)
    folder = folder or notebooks.notebooks_dir()
    out = (runs or runs_dir()) / "course" / profile
    out.mkdir(parents=True, exist_ok=True)
    names = notebooks.select(notebooks.lessons(folder), only)
    outcomes = []
    for number, name in enumerate(names, 1):
        outcome = run_lesson(name, folder, out, profile, limits, f"{number}/{len(names)} {name}")
        outcomes.append(outcome)
        if not outcome.ok:
            print(failure_text(outcome), file=sys.stderr, flush=True)
    print(table(outcomes))
    print(f"executed copies: {out}\nfigures:         {out / 'figures'}")
    return outcomes


def limits_for(profile: str, cell_timeout: float | None = None) -> Limits:
    """The profile's limits, with another one for a cell if given (the notebook's then grows with it)."""
    default = LIMITS[profile]
    if cell_timeout is None:
        return default
    if not 0 < cell_timeout < float("inf"):
        raise SeminarError(f"the cell time-out is a positive number of seconds, got {cell_timeout:g}")
    return Limits(cell_timeout, max(default.notebook, 4 * cell_timeout), default.start)


def run_lesson(name: str, folder: Path, out: Path, profile: str, limits: Limits, title: str) -> Outcome:
    """Execute one lesson under a progress bar; write the executed copy and its figures."""
    notebook = notebooks.read_lesson(folder, name)
    expected = expected_seconds(out / "timings.json", name, notebook, profile)
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
    with Progress(title, cells, expected) as progress:
        outcome = execute(notebook, name, folder, profile, limits, progress.cell_begins, progress.tick)
        progress.finish(outcome)
    nbformat.write(notebook, out / f"{name}.ipynb")
    extract_figures(notebook, name, out / "figures")
    if outcome.ok:
        remember_seconds(out / "timings.json", name, outcome.seconds)
    return outcome


class Progress:
    """One bar per notebook: which of how many, cell, elapsed and expected time."""

    def __init__(self, title: str, cells: int, expected: float | None):
        self.title, self.cells, self.expected = title, cells, expected
        self.started = self.told = time.monotonic()
        every = 0.5 if sys.stderr.isatty() else 15  # a log file gets few lines
        bar = "{desc} |{bar:20}| {postfix}"
        self.every = every
        self.bar = tqdm(total=cells, desc=title, bar_format=bar, leave=True, mininterval=every, disable=False)

    def __enter__(self) -> Progress:
        self._say("starting the kernel")
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def cell_begins(self, number: int) -> None:
        """The `number`-th code cell is about to run."""
        self.bar.n = number - 1
        self.doing = f"cell {number}/{self.cells}"

    def tick(self) -> None:
        """Show the elapsed time now and then, also while one cell takes long."""
        if time.monotonic() - self.told >= self.every:
            self._say(self.doing)

    def finish(self, outcome: Outcome) -> None:
        """The last state of the bar."""
        self.bar.n = self.cells if outcome.ok else max(0, outcome.cell - 1)
        self._say("ok" if outcome.ok else f"FAILED in cell {outcome.cell}/{self.cells}")

    def _say(self, doing: str) -> None:
        self.doing, self.told = doing, time.monotonic()
        about = f" of about {self.expected:.0f} s" if self.expected else ", not timed before"
        self.bar.set_postfix_str(f"{doing}, {self.told - self.started:.0f} s{about}", refresh=False)
        self.bar.refresh()


def expected_seconds(timings: Path, name: str, notebook: nbformat.NotebookNode, profile: str) -> float | None:
    """Seconds of the last run in this profile, else what the build recorded (cpu profile), else None."""
    known = _read_timings(timings).get(name)
    if known is None and profile == "cpu":
        minutes = notebook.metadata.get("seminar", {}).get("minutes")
        known = 60 * minutes if minutes else None
    return known


def remember_seconds(timings: Path, name: str, seconds: float) -> None:
    """Keep a lesson's time for the next run's expectation."""
    timings.write_text(json.dumps({**_read_timings(timings), name: round(seconds, 1)}, indent=1, sort_keys=True))


def _read_timings(timings: Path) -> dict[str, float]:
    try:
        return dict(json.loads(timings.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def extract_figures(notebook: nbformat.NotebookNode, name: str, folder: Path) -> list[Path]:
    """Write every picture among the outputs as `NAME-01.png`, ...; those of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*"):
        old.unlink()
    written = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            kind = next((kind for kind in PICTURES if kind in output.get("data", {})), None)
            if kind:
                path = folder / f"{name}-{len(written) + 1:02d}.{PICTURES[kind]}"
                path.write_bytes(_picture_bytes(output["data"][kind], kind))
                written.append(path)
    return written


def _picture_bytes(content: str | list[str], kind: str) -> bytes:
    text = "".join(content)
    return text.encode() if kind == "image/svg+xml" else base64.b64decode(text)


def failure_text(outcome: Outcome) -> str:
    """The failing cell's source and what went wrong."""
    source = outcome.cell_source or "(no cell had begun)"
    rule = "-" * 78
    return f"\n{outcome.name}, code cell {outcome.cell} failed:\n{rule}\n{source}\n{rule}\n{outcome.error}\n"


def table(outcomes: list[Outcome]) -> str:
    """One row a lesson: seconds, peak memory of its kernel, ok or what failed."""
    rows = [("notebook", "seconds", "peak memory", "result")]
    for item in outcomes:
        result = "ok" if item.ok else f"FAILED in code cell {item.cell}: {_last_line(item.error)}"
        rows.append((item.name, f"{item.seconds:.1f}", f"{item.peak_mb:.0f} MB", result))
    width = max(len(row[0]) for row in rows)
    lines = [f"{a:<{width}}  {b:>8}  {c:>11}  {d}" for a, b, c, d in rows]
    failed = sum(not item.ok for item in outcomes)
    total = sum(item.seconds for item in outcomes)
    summary = f"{len(outcomes)} lessons, {failed} failed, {total:.0f} s in all"
    return "\n".join(["", lines[0], "-" * len(lines[0]), *lines[1:], "", summary])


def _last_line(text: str) -> str:
    lines = [line for line in re.split(r"\n+", text.strip()) if line]
    return lines[-1][:120] if lines else ""
