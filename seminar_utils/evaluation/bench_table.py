"""From the rows of a benchmark to a table: one entry a condition, mean and interval over the seeds.

An entry never mixes conditions: every axis that varies stands in the rows, in the columns, or is fixed by `where`.
What failed, is missing or undefined is counted beside the mean, not left out in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats

from ..runtime import SeminarError, unknown_name
from .bench_cells import AXES, Cell
from .bench_store import Row, newest
from .differences import Difference, correct, is_real
from .results import no_collection

LOWER_IS_BETTER = ("ece", "adaptive_ece", "nll", "brier", "harm", "collapse_alarm", "ms_per_image",
                   "forward_per_image", "backward_per_image")  # fmt: skip
UNBOUNDED = ("nll", "ms_per_image", "forward_per_image", "backward_per_image")  # from 0 upwards; the others to 1
NOTHING = "there is no row to show: run the benchmark first (seminar bench run), or look at --where"
Names = tuple[Any, ...]


@dataclass(frozen=True)
class Value:
    """One entry: mean and 95% interval (NaN for none), over how many seeds, and how many cells lack a number.

    difference: to the control, where one was named; `by_seed` is what it was made of.
    """

    mean: float
    low: float
    high: float
    by_seed: Mapping[int, float] = field(default_factory=dict)
    failed: int = 0
    missing: int = 0
    undefined: int = 0
    difference: Difference | None = None

    @property
    def starred(self) -> bool:
        """True for a difference that is real after the correction, and not all of it too small to matter."""
        return self.difference is not None and self.difference.real and self.difference.matters

    @property
    def lacks(self) -> str:
        """What is not in the mean, in words: "1 failed, 2 missing"."""
        counts = {"failed": self.failed, "missing": self.missing, "undefined": self.undefined}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)

    def __str__(self) -> str:
        if self.difference is not None:
            found = self.difference.interval
            said = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{' *' if self.starred else ''}"
        elif math.isnan(self.mean):
            return self.lacks or "-"
        elif math.isnan(self.low):
            said = f"{self.mean:.3f}"
        else:
            said = f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"
        return said + (f" ({self.lacks})" if self.lacks else "")


@dataclass(frozen=True)
class Table:
    """Entries by (names of the row, names of the column); `fixed`: what all of them share; notes: to be read."""

    metric: str
    row_axes: tuple[str, ...]
    column_axes: tuple[str, ...]
    rows: tuple[Names, ...]
    columns: tuple[Names, ...]
    values: Mapping[tuple[Names, Names], Value]
    fixed: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@no_collection()
def bench_table(
    rows: Iterable[Row],
    cells: Sequence[Cell] = (),
    metric: str = "balanced_accuracy",
    row_axes: Sequence[str] = ("method",),
    column_axes: Sequence[str] | None = None,
    over: str | None = None,
    where: Mapping[str, Any] | None = None,
    smallest: float = 0.0,
) -> Table:
    """The table of a benchmark's rows.

    Args: cells: of the spec, to know what is missing, and to leave rows of other specs out; row_axes, column_axes:
    some of `AXES`, columns by default all others that vary; over: a method, the control: entries are then paired
    differences to it, corrected by Holm for all of them together; where: axis -> the one value to show;
    smallest: no star for a difference whose interval lies wholly below it.
    Raises SeminarError for unknown names, no rows, or an axis that varies and has no place.
    """
    found = _of(newest(rows).values(), cells, where or {})
    if all(row.get("missing") for row in found):
        raise SeminarError(NOTHING)
    vary = varying(found)
    for axis in [*row_axes, *(column_axes or [])]:
        if axis not in AXES:
            raise unknown_name("axis of a table", axis, AXES)
    if column_axes is None:
        column_axes = [axis for axis in AXES if axis in vary and axis not in row_axes]
    lost = _mixed(found, [*row_axes, *column_axes], vary)
    if lost:
        raise SeminarError(
            f"{', '.join(lost)} vary and would be mixed: put them into the rows or columns, "
            f"or fix them by --where {lost[0]}={vary[lost[0]][-1]}"
        )
    values = aggregate(found, metric, row_axes, column_axes)
    first = found[0]["params"]
    fixed = {axis: first[axis] for axis in AXES if axis not in (*row_axes, *column_axes, *vary)}
    notes = [_about_intervals(values)]
    if over is not None:
        values = _differences(values, tuple(row_axes), over, metric, smallest)
        notes = [_about_differences(values, over, smallest)]
    names = [tuple(sorted({key[side] for key in values}, key=_order)) for side in (0, 1)]
    shape = (tuple(row_axes), tuple(column_axes), *names)
    return Table(metric, *shape, values, fixed, tuple(filter(None, notes)))


def only(rows: Iterable[Row], cells: Sequence[Cell], where: Mapping[str, Any] | None = None) -> list[Row]:
    """The newest rows of these cells that match `where`, no failures. Raises SeminarError when none is left."""
    found = [row for row in _of(newest(rows).values(), cells, where or {}) if row.get("metrics")]
    if not found:
        raise SeminarError(NOTHING)
    return found


def _of(rows: Iterable[Row], cells: Sequence[Cell], where: Mapping[str, Any]) -> list[Row]:
    """The rows of these cells that match, and a stand-in for each cell that has no row."""
    for axis in where:
        if axis not in AXES:
            raise unknown_name("axis of a table", axis, AXES)
    rows = list(rows)
    if cells:
        here = {row["cell"]: row for row in rows}
        rows = [
            here.get(cell.key) or {"params": cell.params(), "seed": cell.seed, "missing": True} for cell in cells
        ]
    if not where:
        return rows
    return [row for row in rows if all(str(row["params"][axis]) == str(value) for axis, value in where.items())]


def varying(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """axis -> its values, for the axes of which there are several."""
    columns = zip(*map(itemgetter(*AXES), [row["params"] for row in rows]))
    found = {axis: list(dict.fromkeys(values)) for axis, values in zip(AXES, columns)}
    return {axis: values for axis, values in found.items() if len(values) > 1}


def _mixed(rows: Sequence[Row], shown: Sequence[str], vary: Mapping[str, list[Any]]) -> list[str]:
    """The axes of which one entry would hold several values."""
    hidden = [axis for axis in vary if axis not in shown]
    seen: dict[Names, Names] = {}
    lost: set[str] = set()
    for row in rows if hidden else ():
        params = row["params"]
        values = tuple([params[axis] for axis in hidden])
        first = seen.setdefault(tuple([params[axis] for axis in shown]), values)
        if first != values:
            lost |= {axis for axis, one, other in zip(hidden, first, values) if one != other}
    return [axis for axis in hidden if axis in lost]


def aggregate(
    rows: Iterable[Row], metric: str, row_axes: Sequence[str], column_axes: Sequence[str]
) -> dict[tuple[Names, Names], Value]:
    """(row, column) -> the mean over seeds with its t interval; of one seed, the interval over its images.

    Raises SeminarError for a metric that no row has, or two results of one seed for one entry.
    """
    groups: dict[tuple[Names, Names], list[Row]] = {}
    for row in rows:
        params = row["params"]
        key = tuple([params[axis] for axis in row_axes]), tuple([params[axis] for axis in column_axes])
        groups.setdefault(key, []).append(row)
    known = next((row["metrics"] for group in groups.values() for row in group if row.get("metrics")), {})
    if metric not in known:
        raise unknown_name("metric", metric, known) if known else SeminarError("no cell has come to a result yet")
    counted = {key: _counted(group, metric) for key, group in groups.items()}
    for key, value in counted.items():
        if len(value.by_seed) + value.failed + value.missing + value.undefined < len(groups[key]):
            raise SeminarError(f"two results of one seed for {key}: methods that bear one name?")
    return _with_intervals(counted, groups, metric)


def _counted(group: Sequence[Row], metric: str) -> Value:
    by_seed, counts = {}, {"failed": 0, "missing": 0, "undefined": 0}
    for row in group:
        if row.get("missing"):
            counts["missing"] += 1
        elif row.get("error"):
            counts["failed"] += 1
        elif (value := row["metrics"].get(metric)) is None:
            counts["undefined"] += 1
        else:
            by_seed[row["seed"]] = value
    return Value(math.nan, math.nan, math.nan, by_seed, **counts)


def _with_intervals(
    counted: dict[tuple[Names, Names], Value], groups: Mapping[tuple[Names, Names], list[Row]], metric: str
) -> dict[tuple[Names, Names], Value]:
    """`seed_interval` for all entries at once: scipy takes a fifth of a millisecond for each alone."""
    sizes = np.array([len(value.by_seed) for value in counted.values()])
    flat = np.array([x for value in counted.values() for x in value.by_seed.values()], dtype=float)
    of = np.repeat(np.arange(len(sizes)), sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.bincount(of, flat, len(sizes)) / sizes
        spread = np.sqrt(np.bincount(of, (flat - means[of]) ** 2, len(sizes)) / (sizes - 1) / sizes)
        half = stats.t.ppf(0.975, np.maximum(sizes - 1, 1)) * spread  # NaN for one seed
    top = np.inf if metric in UNBOUNDED else 1.0
    done = {}
    for (key, value), mean, by in zip(counted.items(), means.tolist(), half.tolist()):
        low, high = max(mean - by, 0.0), min(mean + by, top)
        if math.isnan(by):
            low, high = math.nan, math.nan
        if len(value.by_seed) == 1:
            row = next(row for row in groups[key] if row.get("metrics"))
            low, high = row["intervals"].get(metric) or (math.nan, math.nan)
        done[key] = replace(value, mean=mean, low=low, high=high)
    return done


def _differences(
    values: Mapping[tuple[Names, Names], Value],
    row_axes: tuple[str, ...],
    over: str,
    metric: str,
    smallest: float,
) -> dict[tuple[Names, Names], Value]:
    """Each entry against the control's of the same condition, paired seed by seed, all corrected together."""
    if "method" not in row_axes:
        raise SeminarError("differences to a method need the methods in the rows")
    place = row_axes.index("method")
    methods = {row[place] for row, _ in values}
    if over not in methods:
        raise unknown_name("control (a method of this table)", over, methods)
    better, found = metric not in LOWER_IS_BETTER, {}
    for (row, column), value in values.items():
        control = values.get(((*row[:place], over, *row[place + 1 :]), column))
        seeds = sorted(set(value.by_seed) & set(control.by_seed)) if control else []
        if row[place] != over and len(seeds) > 1:
            pair = [[of.by_seed[seed] for seed in seeds] for of in (control, value)]
            about = {"metric": metric.replace("_", " "), "higher_is_better": better, "smallest": smallest}
            found[row, column] = is_real(*pair, **about)
    corrected = correct(found) if found else {}
    return {
        key: replace(value, difference=corrected[key]) if key in corrected else _without(value)
        for key, value in values.items()
        if key[0][place] != over
    }


def _without(value: Value) -> Value:
    return replace(value, mean=math.nan, low=math.nan, high=math.nan)


def _about_intervals(values: Mapping[Any, Value]) -> str:
    seeds = sorted({len(value.by_seed) for value in values.values() if value.by_seed})
    if seeds == [1]:
        return "one seed: the interval is over its images, and says nothing about another training"
    return f"mean and 95% interval over {' to '.join(map(str, seeds[:1] + seeds[-1:] * (len(seeds) > 1)))} seeds"


def _about_differences(values: Mapping[Any, Value], over: str, smallest: float) -> str:
    judged = sum(value.difference is not None for value in values.values())
    if not judged:
        return f"difference to {over}: none could be judged, that needs at least two seeds of both"
    size = f", and not all below {smallest:g}" if smallest else ""
    return f"difference to {over}, paired by seed; * real after Holm's correction for {judged} comparisons{size}"


def _order(names: Names) -> tuple:
    """Sources and controls first, "none" before shifts, numbers by size, the rest by the alphabet."""
    first = {"source": 0, "bn": 1, "BN": 1, "none": 0}
    return tuple(
        (0, name, "") if isinstance(name, int | float) else (1, first.get(name, 2), str(name)) for name in names
    )
