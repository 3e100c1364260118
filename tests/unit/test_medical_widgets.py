"""The box slider: its table, its callback as a plain function, the static twin; many prompts on one encoding."""

import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.evaluation.prompted import box_prompts, point_prompts, segment
from seminar_utils.evaluation.reprompt import dice_by_looseness, encode_images
from seminar_utils.models import create_model
from seminar_utils.models.sam_transforms import SamTransform
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import explore as explore_module
from seminar_utils.teaching import widgets

LOOSE = (-0.2, 0.0, 0.4)


@pytest.fixture(scope="module")
def phantoms():
    found = load("phantoms", "test", n=3)
    return found.images, found.masks == 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("sam_tiny").eval()


@pytest.fixture(scope="module")
def encoded(model, phantoms):
    return encode_images(model, phantoms[0])


@pytest.fixture(scope="module")
def table(encoded, phantoms):
    return widgets.box_table(encoded, *phantoms, ["a", "b", "c"], LOOSE)


def test_one_encoding_answers_as_the_whole_model(encoded, model, phantoms):
    images, masks = phantoms
    boxes, points = box_prompts(masks), point_prompts(masks)
    assert np.array_equal(encoded.segment(boxes=boxes), segment(model, images, {"boxes": boxes}))
    expected = segment(model, images, {"points": points}, multimask=True)
    assert np.array_equal(encoded.segment(points=points, multimask=True), expected)


def test_another_pipeline_is_looked_through(encoded, model, phantoms):
    other = encode_images(model, phantoms[0], SamTransform(64, 1))
    assert other.embeddings.shape == encoded.embeddings.shape
    assert not torch.allclose(other.embeddings, encoded.embeddings, atol=1e-3)


def test_the_filled_box_is_best_when_tight(phantoms):
    base = dice_by_looseness(None, phantoms[1], LOOSE)
    assert list(base) == list(LOOSE) and base[0.0].shape == (3,)
    assert (base[0.4] < base[0.0]).all()


def test_the_table_holds_every_image_and_looseness(table, phantoms):
    assert set(table) == {(name, share) for name in "abc" for share in LOOSE}
    stop = table["b", 0.0]
    assert np.array_equal(stop.truth, phantoms[1][1]) and stop.filled == pytest.approx(
        dice_by_looseness(None, phantoms[1], (0.0,))[0.0][1]
    )


def test_callback_shows_the_stop(table):
    figure = widgets.box_figure("b", 0.4, table)
    stop = table["b", 0.4]
    assert figure.axes[1].get_title() == f"looseness +40%: model {stop.dice:.2f}, filled box {stop.filled:.2f}"
    box = figure.axes[0].lines[0].get_xdata()
    assert min(box) == pytest.approx(stop.box[0] - 0.5) and max(box) == pytest.approx(stop.box[2] + 0.5)


def test_the_twin_shows_all_stops(table):
    titles = [ax.get_title() for ax in widgets.box_explorer(table).axes]
    assert len(titles) == 9 and titles[0].startswith("-20%\n") and titles[2].startswith("+40%\n")


def test_live_it_is_a_menu_and_a_slider(table, monkeypatch):
    monkeypatch.setattr(explore_module, "is_static", lambda: False)
    image, looseness = widgets.box_explorer(table).children[:2]
    assert image.options[0][0] == "a" and looseness.options[0] == ("-0.2", -0.2)


def test_bad_input_is_told(table, encoded, phantoms):
    with pytest.raises(SeminarError, match="no 'z' with looseness 0.4"):
        widgets.box_figure("z", 0.4, table)
    with pytest.raises(SeminarError, match="is empty"):
        widgets.box_explorer({})
    with pytest.raises(SeminarError, match="name of its own"):
        widgets.box_table(encoded, *phantoms, ["a", "a", "b"], LOOSE)
    with pytest.raises(SeminarError, match="one prompt an image"):
        encoded.segment(boxes=box_prompts(phantoms[1][:2]))
    with pytest.raises(SeminarError, match="prompts are boxes"):
        encoded.segment()
