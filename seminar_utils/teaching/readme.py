"""The README's numbers, lesson table and pictures, all taken from what was measured; none is typed.

Between `<!-- number: KEY -->` and `<!-- /number -->` stands a value from the shipped rows of the results
store, between `<!-- lessons -->` and `<!-- /lessons -->` the table of lessons, and `docs/pictures/` holds the
pictures of the executed notebooks' cells tagged `readme-figure:NAME`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import nbformat

from ..evaluation.intervals import Interval, seed_interval
from ..evaluation.measure import Row, gain, summarise
from ..evaluation.results import ResultsStore, shipped_results
from ..runtime import SeminarError, repository, unknown_name
from .lessons import COURSE

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}


def shipped_rows(experiment: str, **where: object) -> list[Row]:
    """Rows that ship with the course (never the reader's own). Raises SeminarError when there are none."""
    rows = [row for path in shipped_results() for row in ResultsStore(path).rows(experiment=experiment)]
    kept = [row for row in rows if all(row["params"].get(key) == value for key, value in where.items())]
    if not kept:
        raise SeminarError(f"no shipped row of experiment {experiment!r} with {where}")
    return kept


def percent(interval: Interval) -> str:
    """`84 [80, 88]`: mean and 95% interval in percent."""
    return f"{100 * interval.mean:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def points(interval: Interval) -> str:
    """`+1.2 [-0.3, +2.7]`: a difference in percentage points."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _severity(strength: float) -> list[Row]:
    return shipped_rows("tent.severity", scanner="C", strength=strength)


def _xray(method: str) -> Interval:
    """Balanced accuracy on the X-rays, for each training seed the mean over the shifts."""
    by_seed: dict[int, list[float]] = {}
    for row in shipped_rows("tent.xray", severity=2, method=method):
        by_seed.setdefault(row["seed"], []).append(row["metrics"]["balanced_accuracy"])
    return seed_interval([sum(values) / len(values) for values in by_seed.values()], bounds=(0, 1))


NUMBERS: dict[str, Callable[[], str]] = {
    "source-home": lambda: percent(summarise(_severity(0.0))["source"]),
    "source-shifted": lambda: percent(summarise(_severity(0.7))["source"]),
    "bn-shifted": lambda: percent(summarise(_severity(0.7))["BN"]),
    "tent-shifted": lambda: percent(summarise(_severity(0.7))["Tent"]),
    "tent-over-bn": lambda: points(gain(_severity(0.7), over="BN", of="Tent")),
    "tent-sorted": lambda: percent(summarise(shipped_rows("tent.order", order="class"))["Tent"]),
    "tent-batch-of-one": lambda: percent(summarise(shipped_rows("tent.batch_size", batch_size=1))["Tent"]),
    "xray-source": lambda: percent(_xray("source")),
    "xray-bn": lambda: percent(_xray("BN")),
    "xray-tent": lambda: percent(_xray("Tent")),
}


def lesson_table(root: Path) -> str:
    """The Markdown table of all lessons: linked with measured minutes where executed, else `coming`."""
    lines = ["| lesson | paper | question | minutes | status |", "|---|---|---|---|---|"]
    for lesson in COURSE:
        path = root / "notebooks" / f"{lesson.name}.ipynb"
        title = f"[{lesson.name}](notebooks/{lesson.name}.ipynb)" if path.exists() else lesson.name
        minutes = _measured_minutes(path) if path.exists() else ""
        status = "ready" if path.exists() else "coming"
        lines.append(f"| {title} | {lesson.paper} | {lesson.question} | {minutes} | {status} |")
    return "\n".join(lines)


def _measured_minutes(path: Path) -> str:
    """Minutes the cells ran when the notebook was built; whole ones, as in its title cell."""
    minutes = nbformat.read(path, as_version=4).metadata.get("seminar", {}).get("minutes")
    return "" if minutes is None else "< 1" if minutes < 0.75 else str(max(1, round(minutes)))


def pictures(root: Path) -> dict[str, bytes]:
    """File name -> content of every picture in a stored notebook whose cell is tagged `readme-figure:NAME`."""
    found = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for tag in cell.metadata.get("tags", []):
                if tag.startswith("readme-figure:"):
                    found.update(_first_picture(tag.split(":", 1)[1], cell))
    return found


def _first_picture(name: str, cell: nbformat.NotebookNode) -> dict[str, bytes]:
    for output in cell.get("outputs", []):
        for mime, suffix in SUFFIXES.items():
            if mime in output.get("data", {}):
                return {name + suffix: base64.b64decode(output["data"][mime])}
    return {}


def render(text: str, root: Path) -> str:
    """The README's text with every number and the table filled in. Raises SeminarError for an unknown key."""

    def number(match: re.Match) -> str:
        if match[1] not in NUMBERS:
            raise unknown_name("number in the README", match[1], NUMBERS)
        return f"<!-- number: {match[1]} -->{NUMBERS[match[1]]()}<!-- /number -->"

    text = re.sub(r"<!-- number: (\S+) -->.*?<!-- /number -->", number, text)
    table = f"<!-- lessons -->\n{lesson_table(root)}\n<!-- /lessons -->"
    return re.sub(r"<!-- lessons -->.*?<!-- /lessons -->", lambda _: table, text, flags=re.DOTALL)


def update(check: bool = False) -> list[str]:
    """Bring README.md and docs/pictures up to the store and the notebooks; returns the files that differed.

    With `check` nothing is written. Raises SeminarError outside of a checkout.
    """
    root = repository()
    if root is None:
        raise SeminarError("README.md is written in a checkout of the course")
    wanted = {root / "docs" / "pictures" / name: content for name, content in pictures(root).items()}
    wanted[root / "README.md"] = render((root / "README.md").read_text(encoding="utf-8"), root).encode()
    changed = [path for path, content in wanted.items() if not path.exists() or path.read_bytes() != content]
    for path in [] if check else changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[path])
    return [str(path.relative_to(root)) for path in changed]
