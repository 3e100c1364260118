"""Wrong input to SAM's family: one clear SeminarError each, saying what was expected and what came."""

import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.boxes import boxes_from_masks, check_boxes, check_points
from seminar_utils.models.intensity import to_uint8
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.models.sam_decoder import CrossAttention
from seminar_utils.models.sam_encoder import ImageEncoderViT
from seminar_utils.models.sam_prompts import PromptEncoder
from seminar_utils.models.sam_transforms import SamTransform
from seminar_utils.models.tiny_vit import BiasedAttention, TinyViT
from seminar_utils.runtime import SeminarError

GREY = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
BAD_BOXES = {
    "one box": ([1, 2, 3, 4], r"boxes \(B, 4\).*got shape \(4,\): give one box as box\[None\]"),
    "three numbers": ([[1, 2, 3]], r"got shape \(1, 3\)"),
    "none": (np.zeros((0, 4)), r"got shape \(0, 4\)"),
    "x, y, width, height": ([[20, 10, 5, 8]], r"got \(20, 10, 5, 8\).*width and height, give \(20, 10, 25, 18\)"),
    "upside down": ([[1, 20, 5, 8]], "x0 <= x1 and y0 <= y1"),
    "too far right": ([[1, 2, 41, 8]], r"\(1, 2, 41, 8\) leaves the image, which is 40 wide and 30 high"),
    "too low": ([[1, 2, 4, 31]], "of the original image, not of the resized one"),
    "negative": ([[-1, 2, 4, 8]], "leaves the image"),
    "NaN": ([[1, 2, float("nan"), 8]], "NaN or infinity"),
    "words": ([["a", "b", "c", "d"]], "expected boxes as numbers"),
    "second of two": ([[1, 2, 3, 4], [1, 2, 400, 4]], r"\(1, 2, 400, 4\) leaves"),
}
BAD_PIXELS = {
    "normalised": (
        np.array([[-2.1, 0.5]]),
        r"from -2.1 to 0.5: give window=.*a normalised image must be given as it",
    ),
    "Hounsfield": (np.array([[-1000, 400]], np.int16), r"Hounsfield units \(CT\), \(40, 400\) for soft tissue"),
    "0..255 in floats": (np.array([[0.0, 255.0]]), r"values in \[0, 1\].*goes from 0 to 255.*astype"),
    "NaN": (np.array([[0.5, np.nan]]), "NaN or infinity: replace them"),
    "a mask": (np.array([[True, False]]), "got bool of shape"),
    "nothing": (np.zeros((0, 4), np.uint8), r"got uint8 of shape \(0, 4\)"),
    "words": (np.array(["a"]), "expected an image of integers or floats"),
}
BAD_SHAPES = {
    "channels first": (np.zeros((3, 30, 40), np.uint8), r"got \(3, 30, 40\): move the channels to the end"),
    "tensor, channels first": (torch.zeros(1, 30, 40), "move the channels to the end"),
    "a batch": (np.zeros((2, 30, 40, 3), np.uint8), r"got \(2, 30, 40, 3\)$"),
    "five channels": (np.zeros((30, 40, 5), np.uint8), r"got \(30, 40, 5\)$"),
    "a row": (np.zeros(30, np.uint8), r"got \(30,\)$"),
}
BAD_PROMPTS = {
    "nothing": ({}, "got nothing"),
    "labels alone": ({"labels": torch.ones(1, 2)}, "points with labels, boxes or masks, got labels"),
    "labels too short": (
        {"points": [[[3, 4], [5, 6]]], "labels": [[1]]},
        r"points \(1, 2, 2\), labels \(1, 1\)",
    ),
    "flat labels": (
        {"points": [[[3, 4]], [[5, 6]]], "labels": [1, 1]},
        r"labels as a tensor \(P, N\), got \(2,\)",
    ),
    "label 2": ({"points": [[3, 4]], "labels": [2]}, r"labels are 1 \(inside\).*got \[2.0\]"),
    "points outside": ({"points": [[3, 4], [41, 5]]}, r"point \(41, 5\) \(x, y\) lies outside the image, 40 wide"),
    "points in a row": ({"points": [3, 4]}, r"points \(P, N, 2\).*got shape \(2,\)"),
    "points that are no numbers": ({"points": "here"}, "expected points as numbers in an array, got str"),
    "labels that are no numbers": ({"points": [[3, 4]], "labels": ["in"]}, "expected labels as numbers"),
    "points without end": ({"points": [[3, float("inf")]]}, "the points hold NaN or infinity"),
    "half a label": ({"points": [[3, 4]], "labels": [0.5]}, r"labels are 1 \(inside\).*got \[0.5\]"),
    "counts": ({"points": [[[3, 4]], [[5, 6]]], "boxes": [[1, 2, 3, 4]]}, r"same P >= 1 objects.*'boxes': 1"),
    "mask of the image": ({"masks": torch.zeros(1, 1, 30, 40)}, r"masks as a tensor \(P, 1, 64, 64\), got"),
    "mask without channel": ({"masks": torch.zeros(1, 64, 64)}, r"\(P, 1, 64, 64\), got \(1, 64, 64\)"),
}


@pytest.fixture(scope="module")
def predictor():
    return SamPredictor(create_model("sam_tiny")).set_image(GREY)


@pytest.mark.parametrize("case", BAD_BOXES)
def test_bad_boxes(predictor, case):
    boxes, message = BAD_BOXES[case]
    with pytest.raises(SeminarError, match=message):
        check_boxes(boxes, (30, 40))
    with pytest.raises(SeminarError, match=message):
        predictor.predict(boxes=boxes)


def test_a_box_over_everything_only_warns(predictor):
    with pytest.warns(UserWarning, match="covers the whole image"):
        predictor.predict(boxes=[[1, 2, 3, 4], [0, 0, 40, 30]])


@pytest.mark.parametrize("case", BAD_PIXELS)
def test_bad_pixels(case):
    pixels, message = BAD_PIXELS[case]
    with pytest.raises(SeminarError, match=message):
        to_uint8(pixels)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("auto", '"percentiles" or "range", got \'auto\''),
        ((40, 0), "a width above 0"),
        ((1, 2, 3), "level, width"),
    ],
)
def test_bad_windows(window, message):
    with pytest.raises(SeminarError, match=message):
        to_uint8(GREY, window)


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_bad_shapes(case):
    image, message = BAD_SHAPES[case]
    for name in ("sam_tiny", "lite_medsam"):
        with pytest.raises(SeminarError, match=message):
            SamPredictor(create_model(name)).set_image(image)


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_bad_prompts(predictor, case):
    prompts, message = BAD_PROMPTS[case]
    with pytest.raises(SeminarError, match=message):
        predictor.predict(**prompts)


def test_a_refused_image_leaves_nothing_to_ask():
    predictor = SamPredictor(create_model("sam_tiny")).set_image(GREY)
    with pytest.raises(SeminarError, match="NaN"):
        predictor.set_image(np.full((9, 9), np.nan))
    with pytest.raises(SeminarError, match="call set_image first"):
        predictor.predict(boxes=[[1, 2, 3, 4]])


def test_no_image_no_model(predictor):
    with pytest.raises(SeminarError, match="call set_image first"):
        SamPredictor(predictor.model).predict(boxes=[[1, 2, 3, 4]])
    with pytest.raises(SeminarError, match="of SAM's family, got VisionTransformer"):
        SamPredictor(create_model("vit_tiny"))
    with pytest.raises(SeminarError, match=r"points \(P, N, 2\)"):
        check_points(torch.zeros(2, 0, 2), (30, 40))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"2 prompts for 3 images: say which is for which by image_index \(P,\)"),
        ([0, 1, 2], r"for each of the 2 prompts, got torch.int64 \[0, 1, 2\]"),
        ([0, 3], r"from 0 to 2 .*got torch.int64 \[0, 3\]"),
        ([0, -1], r"got torch.int64 \[0, -1\]"),
        ([0.0, 1.0], "got torch.float32"),
        ([True, False], "got torch.bool"),
    ],
)
def test_bad_image_index(index, message):
    model = create_model("sam_tiny")
    with pytest.raises(SeminarError, match=message):
        model.decode(torch.zeros(3, 64, 16, 16), index, boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2))


@pytest.mark.parametrize("name", ["sam_tiny", "lite_medsam", "sam_vit_b"])
def test_bad_tensors(name):
    options = {"depth": 1, "global_attn_indexes": (), "dim": 24, "num_heads": 2} if name == "sam_vit_b" else {}
    model = create_model(name, **options)
    channels = model.image_encoder.in_chans
    with pytest.raises(SeminarError, match=r"torch.uint8: convert"):
        model.encode(torch.zeros(1, channels, 64, 64, dtype=torch.uint8))
    with pytest.raises(SeminarError, match=r"got shape \(1, 2, 64, 64\)"):
        model.encode(torch.zeros(1, 2, 64, 64))
    with pytest.raises(SeminarError, match="multiples of .*got 62 x 64"):
        model.encode(torch.zeros(1, channels, 62, 64))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3, 4), r"\(x0, y0, z0, x1, y1, z1\), got 4 numbers"),
        ((1, 2, 0, 9, 9, 5), "whole slices from 0 to 4, got 0 and 5"),
        ((1, 2, 3, 9, 9, 1), "z0 <= z1"),
        ((1, 2, 0.5, 9, 9, 3), "whole slices"),
        ("here", "expected sides of the box as numbers"),
        ((9, 2, 0, 1, 9, 3), "x0 <= x1"),
    ],
)
def test_bad_boxes_of_a_volume(predictor, box, message):
    with pytest.raises(SeminarError, match=message):
        predictor.predict_volume(np.zeros((5, 30, 40), np.uint8), box)


def test_bad_volumes(predictor):
    with pytest.raises(SeminarError, match=r"a volume \(D, H, W\), got shape \(30, 40\)"):
        predictor.predict_volume(np.zeros((30, 40), np.uint8), (1, 2, 0, 9, 9, 3))
    with pytest.raises(SeminarError, match="Hounsfield"):
        predictor.predict_volume(np.full((3, 30, 40), -5, np.int16), (1, 2, 0, 9, 9, 2))


def test_empty_masks_have_no_box():
    with pytest.raises(SeminarError, match="mask 1 is empty"):
        boxes_from_masks(torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]))
    with pytest.raises(SeminarError, match=r"masks \(P, H, W\), got shape \(4, 4\)"):
        boxes_from_masks(torch.ones(4, 4))


def test_impossible_sizes():
    with pytest.raises(SeminarError, match="the patch divides the image"):
        create_model("sam_tiny", img_size=66)
    with pytest.raises(SeminarError, match=r"global blocks \(1, 3\)"):
        create_model("sam_tiny", depth=2)
    with pytest.raises(SeminarError, match="got dim=10, heads=3"):
        CrossAttention(10, 3)
    with pytest.raises(SeminarError, match="got dim=10, heads=3"):
        BiasedAttention(10, 3, 7)
    with pytest.raises(SeminarError, match="got 33 and 16"):
        PromptEncoder(33)
    with pytest.raises(SeminarError, match="same four stages"):
        TinyViT(dims=(64, 128, 160))
    with pytest.raises(SeminarError, match="in_chans is 1 or 3"):
        SamTransform(64, in_chans=2)
    with pytest.raises(SeminarError, match="must divide the width"):
        ImageEncoderViT(64, 16, dim=30, num_heads=4)
