"""Our Swin against torchvision's and timm's: same random weights, same outputs, same gradients."""

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import from_timm, from_torchvision, load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_
from seminar_utils.models.windows import relative_positions, shift_mask
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()
timm = pytest.importorskip("timm")

TINY = {"window_size": [4, 4], "num_heads": [2, 4, 8], "depths": [2, 2, 2], "embed_dim": 32, "patch_size": [2, 2]}


def images(batch, channels, height, width):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def check(title, ours, reference, rename, x, feature, tolerance=1e-5):
    load_weights(ours, rename(reference.state_dict()))
    report = parity_report(ours, reference, x, rename=rename, feature=feature)
    print("\n" + parity_line(title, report))
    assert all(value <= tolerance for key, value in report.items() if key != "max_difference"), report


@pytest.mark.parametrize(("height", "width"), [(224, 224), (92, 156)])
def test_swin_t_equals_torchvision(height, width):
    """92 x 156 gives maps of 23 x 39, 12 x 20, 6 x 10 and 3 x 5: padding, odd merges, windows too large."""
    reference = randomise_(torchvision.models.swin_t(), seed=3)
    feature = ("layers.1.downsample", "features.4")
    x = images(2, 3, height, width)
    title = f"swin_t ({height} x {width}) vs torchvision"
    check(title, create_model("swin_t"), reference, from_torchvision, x, feature)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (224, 448)])
def test_swin_t_equals_timm(height, width):
    """Only sizes that need no padding: timm rolls before it pads, the others pad before they roll."""
    reference = timm.create_model("swin_tiny_patch4_window7_224", img_size=(height, width))
    feature = ("layers.0.downsample", "layers.1.downsample")
    x = images(2, 3, height, width)
    title = f"swin_t ({height} x {width}) vs timm"
    check(title, create_model("swin_t"), randomise_(reference, seed=3), from_timm, x, feature)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (18, 50), (6, 4)])
def test_swin_tiny_equals_torchvision_in_float64(height, width):
    """In float64: what float32 forgives (LayerNorm's eps of 1e-6 for 1e-5) must show as well."""
    reference = torchvision.models.SwinTransformer(**TINY, num_classes=6)
    reference = randomise_(reference, seed=3).double()
    ours = create_model("swin_tiny", in_chans=3).double()
    x = images(3, 3, height, width).double()
    title = f"swin_tiny (float64, {height} x {width}) vs torchvision"
    check(title, ours, reference, from_torchvision, x, ("layers.1.blocks.1.norm2", "features.3.1.norm2"), 1e-11)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (32, 96)])
def test_swin_tiny_equals_timm_in_float64(height, width):
    shape = {key: TINY[key] for key in ("embed_dim", "depths", "num_heads")}
    reference = timm.models.SwinTransformer(
        img_size=(height, width), patch_size=2, window_size=4, in_chans=1, num_classes=6, **shape
    )
    reference = randomise_(reference, seed=3).double()
    x = images(3, 1, height, width).double()
    title = f"swin_tiny (float64, {height} x {width}) vs timm"
    check(title, create_model("swin_tiny").double(), reference, from_timm, x, None, 1e-11)


@pytest.mark.parametrize(
    ("name", "of_torchvision"), [("swin_t", "swin_t"), ("swin_s", "swin_s"), ("swin_b", "swin_b")]
)
def test_all_sizes_have_torchvision_s_shapes(name, of_torchvision):
    with torch.device("meta"):
        reference = from_torchvision(torchvision.models.get_model(of_torchvision).state_dict())
        ours = create_model(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in reference.items()}


@pytest.mark.parametrize(("height", "width"), [(56, 56), (28, 14), (14, 7)])
def test_the_mask_equals_timm_s(height, width):
    shift = tuple(3 if side > 7 else 0 for side in (height, width))
    block = timm.models.swin_transformer.SwinTransformerBlock(
        dim=8, input_resolution=(height, width), num_heads=2, window_size=7, shift_size=3
    )
    assert torch.equal(shift_mask(height, width, 7, shift), block.attn_mask)


def test_relative_positions_equal_timm_s_and_torchvision_s():
    ours = relative_positions(7)
    assert torch.equal(
        ours, timm.models.swin_transformer.WindowAttention(8, 2, window_size=(7, 7)).relative_position_index
    )
    flat = torchvision.models.swin_transformer.ShiftedWindowAttention(8, [7, 7], [0, 0], 2).relative_position_index
    assert torch.equal(ours.flatten(), flat)
