"""The window explorer: whom a patch sees, the picture, the twin, and the live form."""

import ipywidgets
import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.parity import randomise_
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_without_shift_a_token_sees_its_window():
    seen = widgets.visible_tokens(8, 4, False, 1, 6)
    assert seen.sum() == 16 and seen[0:4, 4:8].all()


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [(3, 3, (2, 6), (2, 6)), (0, 0, (0, 2), (0, 2)), (0, 7, (0, 2), (6, 8)), (7, 4, (6, 8), (2, 6))],
)
def test_with_shift_it_sees_across_the_border_but_not_round_the_image(row, column, rows, columns):
    expected = np.zeros((8, 8), bool)
    expected[slice(*rows), slice(*columns)] = True
    assert np.array_equal(widgets.visible_tokens(8, 4, True, row, column), expected)


def test_a_window_that_covers_the_map_is_not_shifted():
    assert widgets.visible_tokens(4, 4, True, 0, 0).all()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("place", [(0, 0), (5, 2), (15, 8)])
def test_it_is_what_the_block_of_the_package_does(shifted, place):
    """A token is seen if changing it changes the answer at `place`."""
    block = randomise_(create_model("swin_tiny"), seed=0).layers[0].blocks[int(shifted)].double().eval()
    x = torch.randn(1, 16, 16, 32, dtype=torch.float64, requires_grad=True)
    block(x)[0][0, place[0], place[1]].sum().backward()
    reached = (x.grad[0].abs().amax(-1) > 1e-12).numpy()
    assert np.array_equal(widgets.visible_tokens(16, 4, shifted, *place), reached)


def test_the_picture_is_bright_where_the_patch_looks():
    figure = widgets.window_figure(8, "yes", "7, 7", IMAGE)
    assert figure.get_suptitle() == "patch (7, 7) sees 64 of 256"
    shown = figure.axes[0].images[0].get_array()
    assert np.allclose(shown[16:48, 16:48] * 255, IMAGE[16:48, 16:48])
    assert (255 - shown[:16] * 255 <= 0.41 * (255 - IMAGE[:16]) + 1e-6).all()  # the rest is faded to white
    assert len(widgets.window_figure(4, "no", "0, 0", IMAGE[..., 0]).axes) == 1  # grey pictures as well


def test_the_twin_shows_all_windows_and_patches():
    figure = widgets.window_explorer(IMAGE, windows=(4, 8), queries=("0, 0", "7, 7"))
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "window 4, no shift\nsees 16",
        "window 4, shifted\nsees 4",
        "window 8, no shift\nsees 64",
        "window 8, shifted\nsees 16",
    ]
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["patch (0, 0)", "patch (7, 7)"]
    assert len(figure.axes) == 8


def test_the_rolled_map_numbers_its_pieces():
    figure = widgets.cyclic_shift(IMAGE)
    before, rolled, pairs = figure.axes
    assert [text.get_text() for text in before.texts] == list("43333" + 4 * "21111")
    assert [text.get_text() for text in rolled.texts] == list(4 * "11112" + "33334")
    assert pairs.images[0].get_array().sum() == 64  # a quarter of the pairs of the corner's window
    assert len(widgets.cyclic_shift(IMAGE[..., 0]).axes) == 3


def test_live_form_calls_back_with_the_chosen_values(monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    box = widgets.window_explorer(IMAGE)
    assert isinstance(box, ipywidgets.interactive)
    controls = {child.description: child for child in box.children[:-1]}
    for name, value in {"window": 8, "shift": "yes", "query": "15, 15"}.items():
        controls[name].value = value
    assert box.kwargs == {"window": 8, "shift": "yes", "query": "15, 15"}
    assert "could not be drawn" not in repr(box.f(**box.kwargs))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: widgets.visible_tokens(8, 4, False, 8, 0), r"no token \(8, 0\)"),
        (lambda: widgets.visible_tokens(8, 3, False, 0, 0), "do not tile"),
        (lambda: widgets.window_figure(4, "perhaps", "0, 0", IMAGE), "'no' or 'yes'"),
        (lambda: widgets.window_figure(4, "no", "here", IMAGE), "row, column"),
        (lambda: widgets.window_figure(4, "no", "0, 0", IMAGE[:60]), "does not divide"),
        (lambda: widgets.window_explorer(IMAGE, queries=()), "no values"),
        (lambda: widgets.cyclic_shift(IMAGE[:60]), "does not divide"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SeminarError, match=message):
        call()
