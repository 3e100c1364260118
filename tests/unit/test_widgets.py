"""The explorers: callbacks as plain functions, the static twin, and both forms in a real kernel."""

import os

import ipywidgets
import nbclient
import nbformat
import numpy as np
import pytest

from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets
from seminar_utils.teaching.explore import errors_shown, explore, make_control

RNG = np.random.default_rng(0)
STRENGTHS = [0.0, 0.25, 0.5, 0.75, 1.0]
IMAGES = RNG.integers(0, 256, (5, 64, 64, 1), dtype=np.uint8)
DIAL = widgets.DialTable(
    STRENGTHS,
    {
        "source": ([0.9, 0.8, 0.6, 0.5, 0.4], [(v - 0.1, v + 0.05) for v in (0.9, 0.8, 0.6, 0.5, 0.4)]),
        "BN": [0.9] * 5,
    },
    IMAGES,
)
RUNS = {
    (stream, batch, rate): {"accuracy": [0.9, 0.9 - 10 * rate], "class_entropy": [1.0, 0.5]}
    for stream in ("iid", "class")
    for batch in (64, 16, 1)
    for rate in (0.001, 0.02)
}
DEPTHS = {8: {"plain": [1.0, 0.5], "residual": [0.9, 0.4]}, 20: {"plain": [2.0, 1.5], "residual": [0.8, 0.3]}}


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)


def test_dial_reads_the_table_at_the_strength():
    figure = widgets.scanner_dial_figure(0.5, DIAL)
    assert figure.axes[0].get_title() == "at 0.5: source 0.60, BN 0.90"
    assert figure.axes[0].lines[-1].get_xdata()[0] == 0.5
    assert np.allclose(figure.axes[1].images[0].get_array() * 255, IMAGES[2, ..., 0])
    assert len(widgets.scanner_dial_figure(0.5, widgets.DialTable(STRENGTHS, {"BN": [0.9] * 5})).axes) == 1


def test_dial_twin_shows_all_strengths():
    figure = widgets.scanner_dial(DIAL)  # no kernel here
    assert [ax.get_title() for ax in figure.axes[:5]] == ["0", "0.25", "0.5", "0.75", "1"]
    assert figure.axes[5].lines[0].get_ydata().tolist() == [0.9, 0.8, 0.6, 0.5, 0.4]


def test_failure_callback_and_grid():
    figure = widgets.failure_figure("class", 16, 0.02, RUNS)
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([0.9, 0.7])
    assert "class stream, batch 16, learning rate 0.02" in figure.axes[0].get_title()
    grid = widgets.failure_explorer(RUNS)
    assert len(grid.axes) == 6 and [ax.get_title() for ax in grid.axes[:3]] == ["batch 64", "batch 16", "batch 1"]
    assert all(len(ax.lines) == 4 for ax in grid.axes)


def test_depth_callback_and_twin():
    assert widgets.depth_figure(20, DEPTHS).axes[0].lines[0].get_ydata().tolist() == [2.0, 1.5]
    assert [ax.get_title() for ax in widgets.residual_explorer(DEPTHS).axes] == ["8 layers", "20 layers"]


def test_patch_callback_and_twin():
    figure = widgets.patch_figure(16, IMAGES[0])
    assert "16 tokens" in figure.axes[0].get_title() and "256 pairs" in figure.axes[0].get_title()
    picture = IMAGES[0, ..., 0] / 255
    first = figure.axes[1].child_axes[0].images[0].get_array()  # token 4: row 1, column 0
    assert np.allclose(first, picture[16:32, 0:16])
    assert len(widgets.patch_figure(32, IMAGES[0]).axes[1].child_axes) == 4
    assert len(widgets.patch_explorer(IMAGES[0]).axes) == 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: widgets.scanner_dial_figure(0.3, DIAL), "no strength 0.3"),
        (lambda: widgets.DialTable([0, 1], {"a": [1]}), "2 strengths"),
        (lambda: widgets.DialTable([], {}), "0 strengths"),
        (lambda: widgets.failure_figure("iid", 3, 0.02, RUNS), "no run"),
        (lambda: widgets.failure_explorer({}), "empty"),
        (lambda: widgets.failure_grid({("iid", 1, 0.1): {"accuracy": [1]}}), "class_entropy"),
        (lambda: widgets.depth_figure(9, DEPTHS), "no depth 9"),
        (lambda: widgets.residual_explorer({}), "empty"),
        (lambda: widgets.patch_figure(7, IMAGES[0]), "do not tile"),
        (lambda: widgets.patch_figure(0, IMAGES[0]), "do not tile"),
        (lambda: explore(print, lambda: None, depth=[]), "no values"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SeminarError, match=message):
        call()


@pytest.mark.parametrize(
    "make, controls",
    [
        (lambda: widgets.scanner_dial(DIAL), {"strength": 0.25}),
        (lambda: widgets.failure_explorer(RUNS), {"stream": "class", "batch size": 1, "learning rate": 0.02}),
        (lambda: widgets.residual_explorer(DEPTHS), {"depth": 20}),
        (lambda: widgets.patch_explorer(IMAGES[0]), {"patch size": 32}),
    ],
)
def test_live_form_calls_back_with_the_sliders_values(make, controls, live):
    box = make()
    assert isinstance(box, ipywidgets.interactive)
    sliders = {child.description: child for child in box.children[:-1]}
    assert set(sliders) == set(controls)
    for name, value in controls.items():
        sliders[name].value = value
    assert box.kwargs == {name.replace(" ", "_"): value for name, value in controls.items()}
    assert "could not be drawn" not in repr(box.f(**box.kwargs))


def test_an_error_in_a_callback_is_shown():
    def broken(depth):
        return 1 / depth

    note = errors_shown(broken)(depth=0)
    assert "ZeroDivisionError" in note.text and "in broken, line" in note.text and "{'depth': 0}" in note.text
    assert errors_shown(broken)(depth=2) == 0.5


def test_controls_for_numbers_and_words():
    slider = make_control("learning_rate", [0.001, 0.02])
    assert isinstance(slider, ipywidgets.SelectionSlider) and slider.value == 0.001
    assert not slider.continuous_update and slider.description == "learning rate"
    assert isinstance(make_control("stream", ["iid", "class"]), ipywidgets.Dropdown)


CELLS = [
    "import numpy as np\n"
    "from seminar_utils import exercise, hint, progress, quiz\n"
    "from seminar_utils.teaching import widgets, figures\n"
    "figures.use_course_style()",
    "def num_tokens(image_size, patch_size):\n    raise NotImplementedError\n\n"
    "num_tokens = exercise('vit.num_tokens', num_tokens)\nprint(num_tokens(32, 4))",
    "quiz('02_vision_transformer')",
    "widgets.patch_explorer(np.linspace(0, 1, 4096).reshape(64, 64))",
    "figures.lines_with_intervals([0, 1], {'BN': [0.1, 0.2]})",
    "progress()",
]


def executed(tmp_path, tries=2, **environment):
    env = {k: v for k, v in os.environ.items() if k != "SEMINAR_STATIC"}
    env |= {"SEMINAR_PROGRESS": str(tmp_path / "p.json"), "OMP_NUM_THREADS": "1", **environment}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    try:
        nbclient.NotebookClient(book, timeout=120, startup_timeout=60, kernel_name="python3").execute(env=env)
    except (RuntimeError, nbclient.exceptions.DeadKernelError):  # a kernel that never started: once more
        if tries == 1:
            raise
        return executed(tmp_path, tries - 1, **environment)
    return book


def kinds(cell):
    return [set(o.get("data", {"stream": 1})) for o in cell.outputs]


def test_stored_form_in_a_real_kernel(tmp_path):
    book = executed(tmp_path, SEMINAR_STATIC="1")
    todo, quiz, patches, lines, table = book.cells[1:]
    assert todo.outputs[0].data["text/plain"].startswith("to do   vit.num_tokens")
    assert todo.outputs[-1].text == "65\n"
    assert kinds(quiz) == [{"text/plain", "text/html"}] and "<details>" in quiz.outputs[0].data["text/html"]
    assert kinds(patches) == [{"text/plain", "image/jpeg"}]  # once, and nothing from pyplot
    assert kinds(lines) == [{"text/plain", "image/png"}]
    assert "0 of " in table.outputs[0].data["text/plain"]
    assert "widget" not in nbformat.writes(book).lower().replace("import widgets", "").replace("widgets.patch", "")
    assert not (tmp_path / "p.json").exists()


def test_live_form_in_a_real_kernel(tmp_path):
    book = executed(tmp_path)
    view = "application/vnd.jupyter.widget-view+json"
    assert view in kinds(book.cells[2])[0] and view in kinds(book.cells[3])[0]
    state = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    drawn = [o for w in state.values() for o in w["state"].get("outputs", [])]
    assert any("image/jpeg" in o.get("data", {}) for o in drawn)  # the slider's first figure
