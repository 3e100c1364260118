"""The attention head chooser: maps from a real network, the callback, its twin, bad input."""

import ipywidgets
import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
MAPS = RNG.random((2, 3, 8, 8))


def test_maps_of_a_network_sum_to_one_over_the_patches():
    torch.manual_seed(0)
    model = create_model("vit_tiny", num_classes=0).eval()
    _, attentions = model(torch.rand(2, 1, 32, 32), return_attention=True)
    maps = widgets.class_attention(attentions, (8, 8))
    assert maps.shape == (2, 3, 8, 8) and np.allclose(maps.sum((2, 3)), 1)
    weights = attentions[-1][1, 2, 0, 1:].detach().numpy()
    assert np.allclose(maps[1, 2].ravel(), weights / weights.sum())
    with pytest.raises(SeminarError, match="do not fill"):
        widgets.class_attention(attentions, (7, 7))


def test_callback_shows_the_chosen_head_of_the_chosen_image():
    figure = widgets.head_figure(1, 2, IMAGES, MAPS)
    assert np.allclose(figure.axes[0].images[0].get_array() * 255, IMAGES[1, ..., 0])
    low, high = MAPS[1, 2].min(), MAPS[1, 2].max()
    assert np.allclose(figure.axes[1].images[1].get_array(), (MAPS[1, 2] - low) / (high - low))
    assert "head 2" in figure.axes[1].get_title()


def test_twin_shows_all_heads():
    figure = widgets.head_explorer(IMAGES, MAPS)  # no kernel here
    assert [ax.get_title() for ax in figure.axes[:4]] == ["image", "head 0", "head 1", "head 2"]
    assert len(figure.axes) == 8


def test_live_form_calls_back(monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    box = widgets.head_explorer(IMAGES, MAPS)
    assert isinstance(box, ipywidgets.interactive)
    sliders = {child.description: child for child in box.children[:-1]}
    sliders["image"].value, sliders["head"].value = 1, 2
    assert box.kwargs == {"image": 1, "head": 2}
    assert "could not be drawn" not in repr(box.f(**box.kwargs))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: widgets.head_figure(2, 0, IMAGES, MAPS), "2 images and 3 heads"),
        (lambda: widgets.head_figure(0, -1, IMAGES, MAPS), "2 images and 3 heads"),
        (lambda: widgets.head_grid(IMAGES[:1], MAPS), "needs maps"),
        (lambda: widgets.head_explorer(IMAGES, MAPS[0]), "needs maps"),
        (lambda: widgets.head_grid(IMAGES, -MAPS), "at least 0"),
        (lambda: widgets.head_grid(IMAGES, MAPS * np.nan), "finite"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SeminarError, match=message):
        call()
