"""The figures: what they draw, how large they are stored, and what they refuse."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from seminar_utils.evaluation.intervals import Interval
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import figures
from seminar_utils.teaching.style import METHOD_COLOURS, PALETTE, one_picture

RNG = np.random.default_rng(0)
RAMP = np.linspace(40, 200, 64)[None, :, None, None] * np.ones((8, 1, 64, 1))
IMAGES = (RAMP + RNG.normal(0, 10, (8, 64, 64, 1))).clip(0, 255).astype(np.uint8)  # as noisy as a scan
BINS = {
    "confidence": np.array([np.nan, 0.3, 0.6, 0.9]),
    "accuracy": np.array([np.nan, 0.2, 0.5, 0.9]),
    "count": np.array([0, 10, 10, 20]),
}
X = np.linspace(0, 1, 6)
WIDE, NARROW = Interval(0.5, 0.2, 0.9), Interval(0.8, 0.75, 0.85)
HISTORY = [{"epoch": e, "loss": 1 / e, "accuracy": 1 - 1 / e, "val_balanced_accuracy": 0.5} for e in (1, 2, 3)]


def every_figure():
    return {
        "grid": figures.image_grid(IMAGES, [f"patient {i}" for i in range(8)], columns=4),
        "curves": figures.training_curves(HISTORY),
        "attention": figures.attention_overlay(IMAGES[0], RNG.random((8, 8))),
        "reliability": figures.reliability_diagram(BINS, "Tent"),
        "bars": figures.bars_with_intervals(["source", "BN"], [0.5, 0.8], [(0.4, 0.6), (0.7, 0.9)], chance=1 / 6),
        "groups": figures.grouped_bars(["A", "C"], {"source": [WIDE, NARROW], "Tent": [NARROW, WIDE]}, chance=0.5),
        "lines": figures.lines_with_intervals(X, {"BN": (X, np.stack([X - 0.1, X + 0.1], 1)), "Tent": X**2}, "x"),
        "histograms": figures.histograms({"A": RNG.normal(size=500), "C": RNG.normal(2, 1, 500)}),
    }


@pytest.mark.parametrize("name, figure", every_figure().items())
def test_stored_size_and_kind(name, figure):
    kind, content = figure.encoded()
    assert kind == ("image/jpeg" if name in ("grid", "attention") else "image/png")
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).width >= 400
    assert figure.description().startswith("Figure: ")


def test_a_figure_is_drawn_the_same_twice():
    assert every_figure()["lines"].encoded() == every_figure()["lines"].encoded()


def test_figures_leave_nothing_open_and_no_setting_changed():
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    every_figure()
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before


def test_lines_and_intervals_lie_where_the_numbers_say():
    figure = figures.lines_with_intervals(
        [1, 2], {"BN": ([0.2, 0.4], [(0.1, 0.3), (0.3, 0.5)]), "Tent": [0.5, 0.6]}
    )
    ax = figure.axes[0]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.2, 0.4], [0.5, 0.6]]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.1) and band[:, 1].max() == pytest.approx(0.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["BN", "Tent"]


def test_a_method_has_the_same_colour_in_every_figure():
    bars = figures.bars_with_intervals(["Tent", "BN adaptation"], [0.5, 0.8])
    lines = figures.lines_with_intervals(X, {"x": X, "tent": X})
    tent = matplotlib.colors.to_rgba(METHOD_COLOURS["tent"])
    assert bars.axes[0].patches[0].get_facecolor() == tent
    assert matplotlib.colors.to_rgba(lines.axes[0].lines[1].get_color()) == tent


def test_bars_show_value_interval_and_chance():
    ax = figures.bars_with_intervals(["a", "b"], [0.5, 0.8], [(0.4, 0.7), (0.7, 0.9)], chance=0.25).axes[0]
    assert [patch.get_height() for patch in ax.patches] == [0.5, 0.8]
    assert {text.get_text() for text in ax.texts} == {"0.5", "0.8"}
    segments = [path.vertices[:, 1].tolist() for path in ax.containers[1][2][0].get_paths()]
    assert np.allclose(segments, [[0.4, 0.7], [0.7, 0.9]])


def test_grouped_bars_stand_at_their_means_with_their_own_intervals():
    figure = figures.grouped_bars(["A", "C"], {"source": [WIDE, NARROW], "Tent": [NARROW, WIDE]}, chance=0.5)
    ax = figure.axes[0]
    assert [patch.get_height() for patch in ax.patches] == [0.5, 0.8, 0.8, 0.5]
    ends = [path.vertices[:, 1].tolist() for lines in ax.collections for path in lines.get_paths()]
    assert np.allclose(ends, [[0.2, 0.9], [0.75, 0.85], [0.75, 0.85], [0.2, 0.9]])
    centres = [patch.get_x() + patch.get_width() / 2 for patch in ax.patches]
    assert centres[0] < centres[2] < 0.5 < centres[1] < centres[3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["source", "Tent"]


def test_a_long_heading_is_broken_into_lines():
    heading = "a large dark ring-shaped lesion in the upper right of the organ, scanner A"
    figure = figures.image_grid(IMAGES[:2], heading=heading, size=2.6)
    assert figure.get_suptitle().replace("\n", " ") == heading and "\n" in figure.get_suptitle()


def test_reliability_writes_the_calibration_error_and_skips_empty_bins():
    ax = figures.reliability_diagram(BINS).axes[0]
    assert any(text.get_text() == "ECE 0.050" for text in ax.texts)
    assert len(ax.collections[0].get_offsets()) == 3


def test_reliability_agrees_with_the_metric():
    from seminar_utils.evaluation.metrics import expected_calibration_error, reliability_bins

    probs = RNG.dirichlet(np.ones(4), 200)
    labels = RNG.integers(0, 4, 200)
    ax = figures.reliability_diagram(reliability_bins(probs, labels)).axes[0]
    assert any(t.get_text() == f"ECE {expected_calibration_error(probs, labels):.3f}" for t in ax.texts)


def test_training_curves_take_what_fit_returns_or_lists():
    for history in (HISTORY, {"loss": [1.0, 0.5, 1 / 3], "val_balanced_accuracy": [0.5] * 3}):
        figure = figures.training_curves(history)
        assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "accuracy"]
        assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([1, 1 / 2, 1 / 3])


def test_histograms_have_area_one():
    ax = figures.histograms({"A": RNG.normal(size=500)}, bins=10).axes[0]
    values, edges, _ = ax.patches[0].get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(1)


def test_pictures_come_from_numpy_and_torch():
    rgb = RNG.random((4, 6, 3))
    assert np.allclose(one_picture(rgb), one_picture(torch.tensor(rgb).permute(2, 0, 1)))
    assert one_picture(np.full((2, 2, 1), 51, np.uint8)).tolist() == [[0.2, 0.2], [0.2, 0.2]]
    assert figures.image_grid(torch.rand(2, 1, 8, 8)).axes[1].images[0].get_array().shape == (8, 8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: figures.image_grid([]), "at least one image"),
        (lambda: figures.image_grid(IMAGES[:2], ["one"]), "2 images and 1 titles"),
        (lambda: figures.image_grid(np.zeros((2, 1, 8, 8))), "1 or 3 channels"),
        (lambda: figures.image_grid(IMAGES[:1].astype(float)), r"floats in \[0, 1\]"),
        (lambda: figures.image_grid([np.full((4, 4), np.nan)]), "without NaN"),
        (lambda: figures.training_curves({"epoch": [1]}), "no loss or accuracy"),
        (lambda: figures.training_curves({"loss": []}), "not be empty"),
        (lambda: figures.attention_overlay(IMAGES[0], np.ones((7, 7))), "does not divide"),
        (lambda: figures.attention_overlay(IMAGES[0], -np.ones((8, 8))), "at least 0"),
        (lambda: figures.attention_overlay(IMAGES[0], np.ones(64)), "2 axes"),
        (lambda: figures.reliability_diagram({"count": [1]}), "missing"),
        (lambda: figures.reliability_diagram({**BINS, "count": np.zeros(4)}), "at least one sample"),
        (lambda: figures.bars_with_intervals(["a"], [1, 2]), "1 labels and 2 values"),
        (lambda: figures.bars_with_intervals(["a"], [1], [(2, 0)]), "low <= high"),
        (lambda: figures.bars_with_intervals(["a"], ["x"]), "should be numbers"),
        (lambda: figures.grouped_bars(["a", "b"], {"x": [WIDE]}), "2 intervals in each series, got {'x': 1}"),
        (lambda: figures.grouped_bars([], {}), "0 intervals"),
        (lambda: figures.lines_with_intervals([1, 2], {}), "no series"),
        (lambda: figures.lines_with_intervals([1, 2], {"a": [1]}), "1 values for 2 places"),
        (lambda: figures.histograms({}), "at least one sample"),
        (lambda: figures.histograms({"a": [np.nan]}), "finite"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SeminarError, match=message):
        call()


def test_the_palette_can_be_told_apart_in_grey():
    grey = sorted(np.dot(matplotlib.colors.to_rgb(colour), [0.3, 0.59, 0.11]) for colour in PALETTE)
    assert len(set(PALETTE)) == 7 and grey[-1] - grey[0] > 0.5


def test_course_style_works_outside_of_a_notebook():
    with matplotlib.rc_context():
        figures.use_course_style()
        assert matplotlib.rcParams["font.size"] == 13
