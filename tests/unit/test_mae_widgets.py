"""The mask-ratio slider: its table, its callback as a plain function, the static twin."""

import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets

RATIOS = (0.25, 0.5, 0.75, 0.9)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def table(image):
    torch.manual_seed(0)
    return widgets.mask_table(create_model("mae_tiny").eval(), image, RATIOS)


def test_masks_only_grow_and_visible_pixels_are_the_image_s(table, image):
    assert [stop.visible for stop in table.values()] == [48, 32, 16, 6]
    before = torch.ones(1, 32, 32, dtype=torch.bool)
    for stop in table.values():
        seen = stop.masked == image
        assert not (seen & ~before).any()
        assert torch.equal(stop.pasted[seen], image[seen])
        before = seen


def test_the_error_is_that_of_the_hidden_pixels(table, image):
    stop = table[0.75]
    hidden = stop.masked != image
    expected = (stop.pasted - image)[hidden].square().mean().sqrt()
    assert stop.error == pytest.approx(float(expected), rel=1e-5)


def test_callback_shows_the_stop(table):
    figure = widgets.mask_figure(0.75, table)
    assert [ax.get_title() for ax in figure.axes][0] == "visible: 16 of 64" and len(figure.axes) == 4
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.allclose(shown.squeeze(), table[0.75].masked[0].numpy(), atol=1e-6)


def test_the_twin_shows_all_stops(table):
    titles = [ax.get_title() for ax in widgets.mask_explorer(table).axes]
    assert titles[:5] == ["25% hidden", "50% hidden", "75% hidden", "90% hidden", "original"]


def test_live_it_is_a_slider(table, monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    assert widgets.mask_explorer(table).children[0].options[0] == ("0.25", 0.25)


def test_bad_input_is_told(table, image):
    with pytest.raises(SeminarError, match="no mask ratio 0.6"):
        widgets.mask_figure(0.6, table)
    with pytest.raises(SeminarError, match="is empty"):
        widgets.mask_explorer({})
    with pytest.raises(SeminarError, match="inside"):
        widgets.mask_table(create_model("mae_tiny"), image, (1.0,))


def test_hidden_patches_are_white_and_only_grow(image):
    before = torch.zeros(1, 32, 32, dtype=torch.bool)
    for ratio in RATIOS:
        hidden = widgets.hide_patches(image[None], ratio, 4)[0]
        white = hidden != image
        assert (hidden[white] == 1).all() and white.sum() == 16 * (64 - int(64 * (1 - ratio)))
        assert not (before & ~white).any()
        before = white
