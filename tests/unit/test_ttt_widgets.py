"""The alignment dial of lesson 12: its table from rows, its callback as a plain function, the static twin."""

import pytest

from seminar_utils.evaluation.intervals import seed_interval
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets

PLACES = [(factor, queue) for factor in (0.0, 1.0, 10.0) for queue in (0, 64)]


def score(factor, queue, seed):
    return 0.6 + 0.02 * factor + 0.001 * queue + 0.01 * seed


def rows():
    return [
        {
            "params": {"method": "TTT++", "factor": factor, "queue": queue, "images": 8},
            "metrics": {"balanced_accuracy": score(factor, queue, seed)},
            "seed": seed,
        }
        for factor, queue in reversed(PLACES)
        for seed in (0, 1, 2)
    ]


@pytest.fixture(scope="module")
def table():
    return widgets.alignment_table([{"params": {"method": "BN"}, "metrics": {}, "seed": 0}, *rows()])


def test_the_table_holds_every_place_with_its_interval_over_seeds(table):
    assert list(table) == PLACES
    assert table[1.0, 64] == seed_interval([score(1.0, 64, seed) for seed in (0, 1, 2)], bounds=(0, 1))


def test_callback_marks_the_place_and_reads_its_number(table):
    ax = widgets.alignment_figure(10.0, 64, table).axes[0]
    cell = table[10.0, 64]
    assert ax.get_title() == f"weight 10, queue of 64: {cell.mean:.2f} [{cell.low:.2f}, {cell.high:.2f}]"
    first, second, mark = ax.lines
    assert list(mark.get_xdata()) == [2, 2]
    assert list(second.get_ydata()) == [table[f, 64].mean for f in (0.0, 1.0, 10.0)]
    assert "no queue" in widgets.alignment_figure(0.0, 0, table).axes[0].get_title()


def test_the_twin_shows_all_places(table):
    figure = widgets.alignment_dial(table)
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["no queue", "queue of 64"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "10"]
    assert figure.description().startswith("Figure: TTT++ by weight")


def test_control_and_condition_are_said_in_both(table):
    control = seed_interval([0.5, 0.6, 0.7], bounds=(0, 1))
    told = {"control": control, "condition": "eight patients"}
    for figure in (widgets.alignment_figure(1.0, 0, table, **told), widgets.alignment_static(table, **told)):
        (ax,) = figure.axes
        (line,) = (line for line in ax.lines if line.get_label() == "BN of the same network")
        assert set(line.get_ydata()) == {control.mean}
        assert ax.get_xlabel().endswith("\neight patients")
        assert "BN of the same network" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_live_it_is_two_sliders(table, monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    weight, queue = widgets.alignment_dial(table).children[:2]
    assert weight.options == (("0", 0.0), ("1", 1.0), ("10", 10.0)) and queue.options == (("0", 0), ("64", 64))


def test_bad_input_is_told(table):
    with pytest.raises(SeminarError, match=r"no weight 2.0 with a queue of 64, it has weights \[0.0, 1.0, 10.0\]"):
        widgets.alignment_figure(2.0, 64, table)
    with pytest.raises(SeminarError, match="is empty"):
        widgets.alignment_dial({})
    with pytest.raises(SeminarError, match="none of these rows"):
        widgets.alignment_table([{"params": {"method": "BN"}}])
