"""A benchmark's table as text: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..runtime import unknown_name
from .bench_store import Row
from .bench_table import Names, Table, Value


def render(table: Table, form: str = "terminal") -> str:
    """The table in one of `FORMATS`. Raises SeminarError for another format."""
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    return FORMATS[form](table)


IN_WORDS = {"iid": "random order", "class": "sorted by class", "dirichlet delta=0.1": "in lumps",
            "prevalence": "one class 90%", "bn": "BN", "tent": "Tent",
            "ttt": "TTT", "ttt_plus_plus": "TTT++", "neighbor_labels": "neighbour labels", "shot_im": "SHOT",
            "eata": "EATA", "eta": "ETA", "sar": "SAR", "lame": "LAME", "t3a": "T3A", "cotta": "CoTTA",
            "memo": "MEMO", "rdumb": "RDumb", "tent_reset": "reset"}  # fmt: skip


def readable(rows: Iterable[Row]) -> list[Row]:
    """Rows under the names that lessons use: "C 0.7" for scanner C at that strength, "random order" for "iid".

    For figures and text; a store keeps the names of the spec. Which norms Tent moves is not said again.
    """
    return [row | {"params": row["params"] | _readable(row["params"])} for row in rows]


def _readable(params: Mapping[str, Any]) -> dict[str, str]:
    first, *rest = params["method"].split(" ")
    method = " ".join([IN_WORDS.get(first, first), *(word for word in rest if not word.startswith("norms="))])
    scanner = re.fullmatch(r"phantoms scanner=(\w)(?: strength=([\d.]+))?", params["data"])
    data = f"{scanner[1]} {scanner[2] or '1.0'}" if scanner else params["data"].replace("domain=", "")
    return {"method": method, "data": data, "stream": IN_WORDS.get(params["stream"], params["stream"])}


def grid_of_words(table: Table) -> list[list[str]]:
    """Head and body as words; a condition without a cell is empty."""
    head = [" / ".join(table.row_axes), *map(spoken, table.columns)]
    body = [[spoken(row), *(_said(table, row, column) for column in table.columns)] for row in table.rows]
    return [head, *(line for line in body if any(line[1:]))]


def spoken(names: Names) -> str:
    """The names of a row or column as one heading; severity 0 of "none" is not said."""
    words = [str(name) for i, name in enumerate(names) if not (name == 0 and "none" in names[:i])]
    return " / ".join(words) or "all"


def _said(table: Table, row: Names, column: Names) -> str:
    value = table.values.get((row, column))
    return "" if value is None else str(value)


def _caption(table: Table) -> list[str]:
    across = f", {' / '.join(table.column_axes)} across" if table.column_axes else ""
    fixed = ", ".join(f"{axis} {value}" for axis, value in table.fixed.items())
    return [f"{table.metric}{across}", *table.notes, *([f"throughout: {fixed}"] if fixed else [])]


def terminal(table: Table) -> str:
    """Aligned columns under a caption."""
    lines = grid_of_words(table)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    body = ["  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() for line in lines]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*_caption(table), "", body[0], rule, *body[1:]])


def markdown(table: Table) -> str:
    """A Markdown table under its caption."""
    head, *body = [[word.replace("|", "\\|") for word in line] for line in grid_of_words(table)]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(["; ".join(_caption(table)), "", *("| " + " | ".join(line) + " |" for line in lines)])


def as_csv(table: Table) -> str:
    """One line an entry, with all numbers; for a spreadsheet."""
    out = io.StringIO()
    numbers = list(_numbers(Value(0, 0, 0)))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.row_axes, *table.column_axes, "metric", *numbers])
    for row in table.rows:
        for column in table.columns:
            value = table.values.get((row, column))
            if value is not None:
                writer.writerow([*row, *column, table.metric, *_numbers(value).values()])
    return out.getvalue().rstrip("\n")


def _numbers(value: Value) -> Mapping[str, object]:
    told = value.difference
    shown = told.interval if told else value
    return {
        "mean": shown.mean,
        "low": shown.low,
        "high": shown.high,
        "seeds": len(value.by_seed),
        "failed": value.failed,
        "missing": value.missing,
        "undefined": value.undefined,
        "p": told.p if told else "",
        "adjusted_p": told.adjusted_p if told else "",
        "real": told.real if told else "",
    }


FORMATS: dict[str, Callable[[Table], str]] = {"terminal": terminal, "markdown": markdown, "csv": as_csv}
