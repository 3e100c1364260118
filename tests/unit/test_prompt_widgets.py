"""The playground of prompts and scanners: the numbers it shows, the callback, the twin, and what it refuses."""

import numpy as np
import pytest

from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import widgets

IMAGES = {"A": np.full((8, 8), 0.2), "C": np.full((8, 8), 0.9)}
LABELS = np.array([0, 0, 0, 1])
SURE = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])  # the third is wrong
PROBS = {
    ("tone", "zero-shot", "A"): np.eye(2)[LABELS],
    ("tone", "zero-shot", "C"): SURE,
    ("tone", "CoOp", "A"): SURE[:, ::-1],
    ("tone", "CoOp", "C"): SURE,
}
TABLE = widgets.ScannerPrompts({"tone": ("dark", "bright")}, {"tone": LABELS}, PROBS, IMAGES)


def test_scores_and_confusion_are_those_of_all_patients():
    accuracy, ece = TABLE.score("tone", "zero-shot", "C")
    assert accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert ece == pytest.approx(
        (2 * abs(0.9 - 1 / 2) + abs(0.8 - 1) + abs(0.7 - 1)) / 4
    )  # the bin of 0.9 holds two
    np.testing.assert_allclose(TABLE.confusion("tone", "zero-shot", "C"), [[2 / 3, 1 / 3], [0, 1]])
    assert TABLE.score("tone", "zero-shot", "A") == (1.0, 0.0)


def test_the_callback_shows_the_patient_on_the_chosen_scanner():
    figure = widgets.scanner_prompt_figure("tone", "CoOp", "A", TABLE)
    picture, bars, grid = figure.axes[:3]
    assert picture.get_title() == "scanner A: dark" and picture.images[0].get_array().mean() == pytest.approx(0.2)
    assert [bar.get_width() for bar in bars.patches] == [0.1, 0.9]
    np.testing.assert_allclose(grid.images[0].get_array(), [[1 / 3, 2 / 3], [1, 0]])
    assert "accuracy 0.17" in grid.get_title() and figure.get_suptitle() == "tone, CoOp"


def test_the_twin_shows_every_prompt_on_every_scanner():
    figure = widgets.scanner_prompts(TABLE)  # no kernel here
    accuracy, ece = (ax.images[0].get_array() for ax in figure.axes)
    np.testing.assert_allclose(accuracy, [[1, 5 / 6], [1 / 6, 5 / 6]])
    assert ece[0, 0] == 0 and ece[0, 1] == ece[1, 1] > 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["zero-shot", "CoOp"]
    assert "tone: accuracy" in figure.description()


def test_a_class_without_patients_leaves_an_empty_row():
    table = widgets.ScannerPrompts(
        {"tone": ("a", "b", "c")}, {"tone": [0]}, {("tone", "p", "A"): [[1, 0, 0]]}, IMAGES
    )
    np.testing.assert_array_equal(table.confusion("tone", "p", "A"), [[1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_what_is_missing_or_does_not_fit_is_told():
    names, labels = {"tone": ("dark", "bright")}, {"tone": LABELS}
    with pytest.raises(SeminarError, match="nothing for 'tone', 'CoOp', 'B'"):
        widgets.scanner_prompt_figure("tone", "CoOp", "B", TABLE)
    with pytest.raises(SeminarError, match="nothing for 'tone', 'CoOp', 'C'"):
        widgets.ScannerPrompts(
            names, labels, {k: v for k, v in PROBS.items() if k != ("tone", "CoOp", "C")}, IMAGES
        )
    with pytest.raises(SeminarError, match=r"expected probabilities \(4, 2\), got \(4, 3\)"):
        widgets.ScannerPrompts(names, labels, {("tone", "p", "A"): np.ones((4, 3))}, IMAGES)
    with pytest.raises(SeminarError, match="at least one question"):
        widgets.ScannerPrompts(names, labels, {}, IMAGES)
    with pytest.raises(SeminarError, match="image of the first patient"):
        widgets.ScannerPrompts(names, labels, PROBS, {"A": IMAGES["A"]})
