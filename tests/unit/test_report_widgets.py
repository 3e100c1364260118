"""The severity dial over the report card: its table, its callback as a plain function, the static twin."""

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.adaptation import BatchNormAdapt, Source
from seminar_utils.evaluation.report import report_card_of
from seminar_utils.evaluation.shifts import apply_shift
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import report_widgets, widgets

METHODS = {"source": Source, "BN": BatchNormAdapt}
ABOUT = {"n_boot": 40, "class_names": ("healthy", "ill")}


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    return network, (torch.rand(60, 1, 12, 12), np.arange(60) % 2), (torch.rand(40, 1, 12, 12), np.arange(40) % 2)


@pytest.fixture(scope="module")
def table(parts):
    return widgets.card_table(METHODS, *parts, "blur", (0, 2, 4), [("contrast", 3)], **ABOUT)


def test_each_card_is_the_one_that_the_method_gets_on_that_shift(table, parts):
    assert list(table) == [(name, severity) for severity in (0, 2, 4) for name in METHODS]
    network, (x, y), validation = parts
    others = {"contrast 3": (apply_shift(x, "contrast", 3), y)}
    shifted = apply_shift(x, "blur", 4), y
    about = {"adaptation": "BN", "shift": "blur 4", "others": others, **ABOUT}
    by_hand = report_card_of(BatchNormAdapt, network, shifted, validation, **about)
    assert table["BN", 4].numbers.auroc == by_hand.numbers.auroc and table["BN", 4].harm == by_hand.harm
    assert table["BN", 4].numbers.worst == by_hand.numbers.worst
    assert table["BN", 4].markdown() == by_hand.markdown()
    assert table["source", 0].shift == "no shift" and table["BN", 4].shift == "blur 4"


def test_callback_shows_the_page_of_that_position(table):
    figure = widgets.report_dial_figure("BN", 2, table)
    words = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert table["BN", 2].verdict in words and "BN, on blur 2" in figure.get_suptitle()


def test_the_twin_marks_every_rule_of_every_card(table):
    figure = widgets.report_dial_static(table)
    marks = [line.get_marker() for axes in figure.axes[2:] for line in axes.lines]
    rules = [check.passed for card in table.values() for check in card.checks]
    assert len(rules) == 3 * 6 + 3 * 7 == len(marks)
    assert marks.count("o") == sum(rules) and marks.count("X") == len(rules) - sum(rules)
    kind, content = figure.encoded()
    assert kind == "image/png" and len(content) < 100_000


def test_the_rules_are_named_in_the_order_of_the_card(table):
    rules = [check.rule for check in table["BN", 0].checks]
    starts = ("AUROC", "No class", "Its confidence", "With the threshold", "Nobody", "It has not", "Adapting")
    assert len(rules) == len(report_widgets.RULES) == len(starts)
    assert all(rule.startswith(start) for rule, start in zip(rules, starts))


def test_live_it_is_a_menu_and_a_slider(table, monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    menu, slider = widgets.report_dial(table).children[:2]
    assert list(menu.options) == [("source", "source"), ("BN", "BN")]
    assert slider.options[-1] == ("4", 4)


def test_bad_input_is_told(table, parts):
    with pytest.raises(SeminarError, match="no card of 'Tent' at severity 2"):
        widgets.report_dial_figure("Tent", 2, table)
    with pytest.raises(SeminarError, match="is empty"):
        widgets.report_dial({})
    with pytest.raises(SeminarError, match="unknown shift 'blurr'"):
        widgets.card_table(METHODS, *parts, "blurr", (1,), **ABOUT)
