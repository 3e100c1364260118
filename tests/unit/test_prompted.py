"""Prompts made from masks, masks made from prompts, and the baseline that needs no model."""

import numpy as np
import pytest
import torch

from seminar_utils import create_model, load
from seminar_utils.evaluation.prompted import (
    box_prompts,
    dice_by_prompt,
    dice_each,
    filled_boxes,
    point_prompts,
    segment,
)
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.runtime import SeminarError


def one_mask():
    mask = np.zeros((1, 12, 20), dtype=bool)
    mask[0, 2:7, 4:14] = True  # 10 wide, 5 high
    return mask


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("sam_tiny", img_size=32, dim=32, depth=1, num_heads=2, global_attn_indexes=())


def test_boxes_tight_loose_and_cut():
    assert box_prompts(one_mask()).tolist() == [[4, 2, 13, 6]]
    assert box_prompts(one_mask(), 0.2).tolist() == [[2, 1, 15, 7]]
    assert box_prompts(one_mask(), 1.0).tolist() == [[0, 0, 19, 11]]  # stays inside
    assert box_prompts(one_mask(), -0.2).tolist() == [[6, 3, 11, 5]]


def test_point_is_the_innermost_pixel_of_a_bent_object():
    mask = np.zeros((1, 20, 20), dtype=bool)
    mask[0, :, :3] = mask[0, 13:, :] = True  # an L whose centre of mass lies outside
    x, y = point_prompts(mask)[0, 0].int().tolist()
    assert mask[0, y, x] and 15 <= y <= 17  # in the thick foot


def test_filled_box_of_a_rectangle_is_the_rectangle():
    masks = one_mask()
    assert dice_each(masks, filled_boxes(box_prompts(masks), masks.shape[1:])).tolist() == [1.0]


def test_batches_give_what_the_predictor_gives_one_by_one(model):
    images = load("phantoms", "test", n=5)
    boxes, points = box_prompts(images.masks == 2), point_prompts(images.masks == 2)
    by_box = segment(model, images.images, {"boxes": boxes}, batch_size=2)
    by_point = segment(model, images.images, {"points": points}, multimask=True, batch_size=3)
    predictor = SamPredictor(model)
    for i, image in enumerate(images.images):
        predictor.set_image(image)
        assert np.array_equal(by_box[i], predictor.predict(boxes=boxes[i : i + 1]).masks[0, 0].numpy())
        assert np.array_equal(by_point[i], predictor.predict(points=points[i], multimask=True).best()[0].numpy())


def test_dice_by_prompt_and_mode(model):
    images = load("phantoms", "test", n=3)
    scores = dice_by_prompt(model.train(), images.images, images.masks == 2)
    assert {name: len(values) for name, values in scores.items()} == {"box": 3, "point": 3, "filled box": 3}
    assert model.training and scores["filled box"].min() > 0.5


def test_bad_prompts(model):
    images = load("phantoms", "test", n=3)
    with pytest.raises(SeminarError, match="one prompt an image.*3 images"):
        segment(model, images.images, {"boxes": box_prompts(images.masks[:2] == 2)})
    with pytest.raises(SeminarError, match="boxes, or points with labels, got box"):
        segment(model, images.images, {"box": box_prompts(images.masks == 2)})
