"""A figure to touch about TTT++: how heavy the alignment, how long the queue (lesson 12). See `widgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.intervals import Interval
from ..evaluation.measure import Row, summarise
from ..runtime import SeminarError
from .explore import explore
from .figures import draw_lines
from .style import CourseFigure, new_figure, styled

AlignmentTable = Mapping[
    tuple[float, int], Interval
]  # (weight of the alignment, length of the queue) -> its score


def alignment_table(rows: Sequence[Row]) -> dict[tuple[float, int], Interval]:
    """The table of the dial from rows that say `factor` and `queue`: mean and interval over training seeds.

    Raises SeminarError when there is no such row.
    """
    found: dict[tuple[float, int], list[Row]] = {}
    for row in rows:
        place = row["params"].get("factor"), row["params"].get("queue")
        if None not in place:
            found.setdefault(place, []).append(row)
    if not found:
        raise SeminarError("none of these rows says the weight of an alignment and the length of a queue")
    return {place: next(iter(summarise(found[place]).values())) for place in sorted(found)}


def _axis(table: AlignmentTable, position: int) -> list:
    return sorted({key[position] for key in table})


def _named(queue: int) -> str:
    return f"queue of {queue}" if queue else "no queue"


def _draw(
    ax: Any,
    table: AlignmentTable,
    factor: float | None = None,
    control: Interval | None = None,
    condition: str = "",
) -> None:
    """One line for each queue, the weights at equal distances (0 has no place on a logarithmic axis)."""
    factors, queues = _axis(table, 0), _axis(table, 1)
    series = {}
    for queue in queues:
        cells = [table[f, queue] for f in factors]
        series[_named(queue)] = [c.mean for c in cells], [(c.low, c.high) for c in cells]
    draw_lines(ax, range(len(factors)), series, marker_x=None if factor is None else factors.index(factor))
    if control is not None:  # after the lines: the same network without any step
        ax.axhline(control.mean, color="#444444", linestyle=":", label="BN of the same network")
    ax.set_xticks(range(len(factors)), [f"{f:g}" for f in factors])
    xlabel = "weight of the alignment, in units of the published one"
    ax.set(xlabel=f"{xlabel}\n{condition}" if condition else xlabel, ylabel="balanced accuracy", ylim=(0, 1.02))
    ax.legend(loc="lower left")


@styled
def alignment_figure(
    weight: float, queue: int, table: AlignmentTable, control: Interval | None = None, condition: str = ""
) -> CourseFigure:
    """The curves with a mark at `weight`, and what stands there for this queue.

    control: the score of the same networks without alignment or contrast, a dotted line; condition: what was
    measured, in words, under the axis.

    Raises SeminarError for a place that the table does not hold.
    """
    if (weight, queue) not in table:
        raise SeminarError(
            f"the table holds no weight {weight!r} with a queue of {queue!r}, it has weights {_axis(table, 0)} "
            f"and queues {_axis(table, 1)}"
        )
    cell = table[weight, queue]
    figure, axes = new_figure()
    _draw(axes[0, 0], table, weight, control, condition)
    axes[0, 0].set_title(f"weight {weight:g}, {_named(queue)}: {cell.mean:.2f} [{cell.low:.2f}, {cell.high:.2f}]")
    return figure


@styled
def alignment_static(table: AlignmentTable, control: Interval | None = None, condition: str = "") -> CourseFigure:
    """The static twin: all weights and queues, with intervals; `control`, `condition` as in `alignment_figure`."""
    figure, axes = new_figure()
    _draw(axes[0, 0], table, control=control, condition=condition)
    axes[0, 0].set_title("TTT++ by weight of its alignment")
    return figure


def alignment_dial(table: AlignmentTable, control: Interval | None = None, condition: str = "") -> Any:
    """How hard should the moments pull, with how much memory? Two sliders, or the static twin.

    `control`, `condition` as in `alignment_figure`. Raises SeminarError for an empty table.
    """
    if not table:
        raise SeminarError("the table of the alignment dial is empty")
    return explore(
        lambda weight, queue: alignment_figure(weight, queue, table, control, condition),
        lambda: alignment_static(table, control, condition),
        weight=_axis(table, 0),
        queue=_axis(table, 1),
    )
