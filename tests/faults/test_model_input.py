"""Wrong input to the networks: one clear SeminarError each, saying what was expected and what came."""

import numpy as np
import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.layers import Attention, DropPath
from seminar_utils.models.resnet import BasicBlock, ResNet
from seminar_utils.models.vit import interpolate_positions
from seminar_utils.runtime import SeminarError

MODELS = ["resnet_small", "vit_tiny", "swin_tiny"]
BAD_IMAGES = {
    "uint8": (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), r"torch.uint8: convert with x.float\(\) / 255"),
    "int64": (torch.zeros(2, 1, 32, 32, dtype=torch.int64), "torch.int64"),
    "float64": (
        torch.zeros(2, 1, 32, 32, dtype=torch.float64),
        "torch.float64, the model's weights torch.float32",
    ),
    "one image": (torch.zeros(1, 32, 32), r"\(B, 1, H, W\).*got shape \(1, 32, 32\)"),
    "rgb": (torch.zeros(2, 3, 32, 32), r"\(B, 1, H, W\).*got shape \(2, 3, 32, 32\)"),
    "channels last": (torch.zeros(2, 32, 32, 1), r"got shape \(2, 32, 32, 1\)"),
    "empty batch": (torch.zeros(0, 1, 32, 32), r"got shape \(0, 1, 32, 32\)"),
    "no pixels": (torch.zeros(2, 1, 0, 32), r"got shape \(2, 1, 0, 32\)"),
    "numpy": (np.zeros((2, 1, 32, 32), np.float32), "got ndarray"),
    "another device": (torch.zeros(2, 1, 32, 32, device="meta"), "on meta, the model is on cpu"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(name, case):
    x, message = BAD_IMAGES[case]
    with pytest.raises(SeminarError, match=message):
        create_model(name)(x)


@pytest.mark.parametrize("name", MODELS)
def test_autocast_is_no_error(name):
    x = torch.zeros(2, 1, 32, 32, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert create_model(name)(x).shape == (2, 6)


def test_vit_image_size():
    model = create_model("vit_tiny")
    with pytest.raises(SeminarError, match="learnt positions for 32 x 32 images, got 40 x 24.*interpolation="):
        model(torch.zeros(1, 1, 40, 24))
    for height, width in [(30, 32), (32, 33), (2, 32)]:
        with pytest.raises(SeminarError, match=f"multiples of the patch, 4: got {height} x {width}"):
            model(torch.zeros(1, 1, height, width))
    with pytest.raises(SeminarError, match="multiples of the patch, 4: got 30 x 30"):
        create_model("vit_tiny", img_size=30)


def test_unknown_names():
    with pytest.raises(SeminarError, match="unknown model 'resnet_smal': did you mean 'resnet_small'"):
        create_model("resnet_smal")
    with pytest.raises(SeminarError, match=r"create_model\('resnet_small'\).*num_clases"):
        create_model("resnet_small", num_clases=3)
    with pytest.raises(SeminarError, match="unknown norm 'batch'.*bn, gn, ln"):
        create_model("resnet_small", norm="batch")
    with pytest.raises(SeminarError, match="unknown position convention 'bilinear'"):
        create_model("vit_tiny", interpolation="bilinear")
    with pytest.raises(SeminarError, match="unknown position convention 'bicubic'"):
        interpolate_positions(torch.zeros(1, 17, 8), (3, 3), "bicubic")


def test_impossible_sizes():
    with pytest.raises(SeminarError, match="must divide the width, got dim=10, heads=3"):
        Attention(10, 3)
    with pytest.raises(SeminarError, match=r"drop-path rate lies in \[0, 1\), got 1"):
        DropPath(1)
    with pytest.raises(SeminarError, match="name the same stages"):
        ResNet(BasicBlock, (2, 2))
    with pytest.raises(SeminarError, match="12 patch positions do not fill"):
        interpolate_positions(torch.zeros(1, 13, 8), (3, 3), "timm")
