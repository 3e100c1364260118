"""MedSAM's preprocessing against the official scripts (golden case 15): intensities, images, boxes, masks.

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import re

import numpy as np
import pytest
import torch

from seminar_utils.models.boxes import boxes_from_masks
from seminar_utils.models.intensity import rescale, to_uint8, window_bounds
from seminar_utils.models.sam_transforms import MedSamTransform, min_max, resize_cubic
from seminar_utils.teaching.golden import golden


@pytest.fixture(scope="module")
def data():
    return golden("medsam_preprocess")


def cases(pattern):
    return sorted({found[1] for key in golden("medsam_preprocess") if (found := re.match(pattern, key))})


def close(got, expected, atol=1e-8):
    np.testing.assert_allclose(np.asarray(got), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("modality", cases(r"in:(\w+):image_data"))
def test_volumes(data, modality):
    volume = data[f"in:{modality}:image_data"]
    window = "percentiles"
    if f"hp:{modality}:window_level" in data:
        window = (data[f"hp:{modality}:window_level"].item(), data[f"hp:{modality}:window_width"].item())
    close(window_bounds(volume, window), data[f"out:{modality}:bounds"])
    close(rescale(volume, window), data[f"out:{modality}:before_uint8"])
    assert np.array_equal(to_uint8(volume, window), data[f"out:{modality}:uint8"])


@pytest.mark.parametrize("case", cases(r"in:2d:(\w+):image"))
def test_pictures(data, case):
    """The script squeezes 16 bits into 8 first, and takes the percentiles of three equal channels."""
    image = data[f"in:2d:{case}:image"]
    image = to_uint8(image, "range") if image.max() > 255 else image
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    image = to_uint8(image, "percentiles") if data[f"hp:2d:{case}:intensity_cutoff"] else to_uint8(image)
    assert np.array_equal(image, data[f"out:2d:{case}:pre"])


def test_image_at_inference(data):
    """Cubic splines and the library's own boundary; then cut off to 8 bits, then stretched."""
    image = torch.from_numpy(data["in:inference:image_u8"])[None].expand(3, -1, -1)
    transform = MedSamTransform(int(data["hp:inference:resize_to"]))
    small = resize_cubic(image, transform.input_size(*image.shape[1:]))
    assert np.array_equal(small[0], data["out:inference:resized_uint8"])
    x = transform.image(data["in:inference:image_u8"])
    assert x.shape == (3, *small.shape[1:]) and torch.equal(x[0], x[2])
    close(x[0], data["out:inference:image_01"], atol=1e-6)  # ours is float32


def test_stretching_a_slice(data):
    close(min_max(torch.from_numpy(data["out:slice:resized"])[None])[0], data["out:slice:resized_01"], atol=1e-6)


def test_boxes_in_the_square(data):
    size = data["in:inference:image_u8"].shape
    boxes = torch.from_numpy(data["in:inference:boxes_xyxy"]).double()
    close(MedSamTransform(1024).boxes(boxes, size), data["out:inference:box_1024"])


def test_probabilities_are_resized(data):
    size = (int(data["hp:medsam_inference:H"]), int(data["hp:medsam_inference:W"]))
    logits = torch.from_numpy(data["in:medsam_inference:low_res_logits"])
    close(
        MedSamTransform().soft_masks(logits, size)[0, 0], data["out:medsam_inference:prob_before_threshold"], 1e-5
    )
    assert np.array_equal(MedSamTransform().masks(logits, size)[0, 0], data["out:medsam_inference:mask"] > 0)


@pytest.mark.parametrize("case", cases(r"out:box_from_mask:(\w+):xyxy"))
def test_box_around_a_mask(data, case):
    x_low, x_high, y_low, y_high = data[f"in:box_from_mask:{case}:draws_xmin_xmax_ymin_ymax"].tolist()
    grow = torch.tensor([[x_low, y_low, x_high, y_high]])
    box = boxes_from_masks(torch.from_numpy(data["in:box_from_mask:gt"])[None], grow)
    assert box[0].tolist() == data[f"out:box_from_mask:{case}:xyxy"].tolist()
