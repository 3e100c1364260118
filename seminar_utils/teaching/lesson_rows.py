"""The measured rows that ship with a lesson: `data/results/NAME.jsonl`, made by the run that made its outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .clean import write_if_changed


@contextmanager
def rows_that_ship(folder: Path, name: str, text: str) -> Iterator[Callable[[], None]]:
    """Within it, measured rows go to a fresh file; `keep()` puts it in the place of the lesson's shipped rows.

    So each number in a stored notebook has its row, from the same run. Shipped rows of an experiment that the
    lesson's `text` still names and that was not measured again (its data is not here) stay.
    """
    shipped = folder.parent / "data" / "results" / f"{name}.jsonl"
    fresh, before = shipped.with_suffix(".fresh"), os.environ.get("SEMINAR_RESULTS")
    fresh.unlink(missing_ok=True)
    os.environ["SEMINAR_RESULTS"] = str(fresh)
    try:
        yield lambda: _merge(fresh, shipped, text)
    finally:
        fresh.unlink(missing_ok=True)
        if before is None:
            del os.environ["SEMINAR_RESULTS"]
        else:
            os.environ["SEMINAR_RESULTS"] = before


def _merge(fresh: Path, shipped: Path, text: str) -> None:
    lines = _lines(fresh)
    measured = {_experiment(line) for line in lines}
    for line in reversed(_lines(shipped)):
        if _experiment(line) not in measured and f'"{_experiment(line)}"' in text:
            lines.insert(0, line)
    if lines:
        write_if_changed(shipped, "\n".join(lines))
    else:
        shipped.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _experiment(line: str) -> str:
    return json.loads(line)["experiment"]
