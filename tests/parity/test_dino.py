"""DINO's and DINOv2's ViTs against timm's: same weights, same outputs, same gradients, at full size."""

import pytest
import torch

from seminar_utils.checkpoints.dinov2 import DINOV2_NAME, dinov2_file, load_dinov2
from seminar_utils.models import create_model
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_, relative_difference
from seminar_utils.models.vit import interpolate_positions
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()  # timm needs it, and it needs its fix
timm = pytest.importorskip("timm")


def images(batch, height, width):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def check(title, ours, reference, x, rename=dict):
    report = parity_report(ours, reference, x, rename=rename, feature=("blocks.5", "blocks.5"))
    print("\n" + parity_line(title, report))
    assert all(value <= 1e-5 for key, value in report.items() if key != "max_difference"), report


def test_dino_vit_small_16_equals_timm():
    reference = randomise_(timm.create_model("vit_small_patch16_224", num_classes=0), seed=3)
    ours = create_model("vit_small_16", num_classes=0, interpolation="dino")
    check("DINO ViT-S/16 vs timm", load_weights(ours, reference.state_dict()), reference, images(2, 224, 224))


def at_size(reference, name, height, width, **options):
    """timm's model for another image size, its positions stretched by DINO's rule."""
    grid = (height // reference.patch_embed.patch_size[0], width // reference.patch_embed.patch_size[1])
    other = timm.create_model(name, num_classes=0, img_size=(height, width), **options)
    state = reference.state_dict()
    other.load_state_dict({**state, "pos_embed": interpolate_positions(state["pos_embed"], grid, "dino")})
    return other


def test_local_crops_are_read_with_dino_s_positions():
    name = "vit_small_patch16_224"
    reference = randomise_(timm.create_model(name, num_classes=0), seed=3)
    ours = create_model("vit_small_16", num_classes=0, interpolation="dino")
    load_weights(ours, reference.state_dict())
    x = images(2, 96, 96)
    with torch.no_grad():
        off = relative_difference(ours.eval()(x), at_size(reference, name, 96, 96).eval()(x))
    print(f"\nDINO ViT-S/16, crops of 96: output {off:.1e}")
    assert off <= 1e-5


@pytest.fixture(scope="module")
def dinov2():
    """The shipped encoder, and timm's with the same weights: its names are ours."""
    if dinov2_file() is None:
        pytest.skip("SEMINAR_DATA does not hold weights/dinov2_vits14_fp16.npz")
    ours = load_dinov2()
    reference = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference.eval()


@pytest.mark.parametrize("size", [(518, 518), (98, 154)])
def test_the_dinov2_encoder_equals_timm(dinov2, size):
    ours, reference = dinov2
    if size != (518, 518):
        reference = at_size(reference, "vit_small_patch14_dinov2", *size).eval()
    x = images(1, *size)
    with torch.no_grad():
        tokens = relative_difference(ours.forward_features(x), reference.forward_features(x))
        output = relative_difference(ours(x), reference(x))
    print(f"\n{DINOV2_NAME}, {size[0]} x {size[1]}, vs timm: tokens {tokens:.1e} output {output:.1e}")
    assert max(tokens, output) <= 1e-5


def test_dinov2_gradients_equal_timm():
    name = "vit_small_patch14_dinov2"
    reference = timm.create_model(name, num_classes=0, img_size=224)
    ours = create_model("vit_small_14", img_size=224)
    reference = randomise_(reference, seed=3)
    check(
        "ViT-S/14 with LayerScale vs timm",
        load_weights(ours, reference.state_dict()),
        reference,
        images(1, 224, 224),
    )
