"""Our ViTs against torchvision's and timm's: same random weights, same outputs, same gradients."""

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import from_torchvision, load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()
timm = pytest.importorskip("timm")


def images(batch, channels, height, width):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def check(title, ours, reference, x, feature, tolerance=1e-5):
    load_weights(ours, from_torchvision(reference.state_dict()))
    report = parity_report(ours, reference, x, rename=from_torchvision, feature=feature)
    print("\n" + parity_line(title, report))
    assert all(value <= tolerance for key, value in report.items() if key != "max_difference"), report


def test_vit_b_16_equals_torchvision():
    reference = randomise_(torchvision.models.vit_b_16(), seed=3)
    feature = ("blocks.5", "encoder.layers.encoder_layer_5")
    check("vit_b_16 vs torchvision", create_model("vit_b_16"), reference, images(2, 3, 224, 224), feature)


def test_vit_b_16_equals_timm():
    reference = randomise_(timm.create_model("vit_base_patch16_224"), seed=3)
    check("vit_b_16 vs timm", create_model("vit_b_16"), reference, images(2, 3, 224, 224), ("blocks.5",) * 2)


def test_vit_small_16_without_head_on_other_image_sizes_equals_timm():
    reference = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True)
    ours = create_model("vit_small_16", num_classes=0, interpolation="timm")
    check(
        "vit_small_16 (96 x 176) vs timm", ours, randomise_(reference, 3), images(2, 3, 96, 176), ("norm", "norm")
    )


@pytest.mark.parametrize(("img_size", "layer_scale", "qkv_bias"), [(32, None, True), ((20, 36), 0.1, False)])
def test_vit_tiny_equals_timm(img_size, layer_scale, qkv_bias):
    """In float64: what float32 forgives (LayerNorm's eps of 1e-5 for 1e-6) must show as well."""
    shape = {"img_size": img_size, "patch_size": 4, "in_chans": 1, "num_classes": 6}
    reference = timm.models.VisionTransformer(
        **shape, embed_dim=96, depth=4, num_heads=3, init_values=layer_scale, qkv_bias=qkv_bias
    )
    ours = create_model("vit_tiny", img_size=img_size, layer_scale=layer_scale, qkv_bias=qkv_bias).double()
    reference = randomise_(reference, seed=3).double()
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    x = images(3, 1, height, width).double()
    check("vit_tiny (float64) vs timm", ours, reference, x, ("blocks.1", "blocks.1"), tolerance=1e-11)


def test_small_vit_equals_torchvision_in_float64():
    shape = {"hidden_dim": 96, "num_layers": 4, "num_heads": 3, "mlp_dim": 384}
    reference = torchvision.models.VisionTransformer(image_size=32, patch_size=4, num_classes=6, **shape)
    reference = randomise_(reference, seed=3).double()
    ours = create_model("vit_tiny", in_chans=3).double()
    feature = ("blocks.1", "encoder.layers.encoder_layer_1")
    x = images(3, 3, 32, 32).double()
    check("vit_tiny (float64) vs torchvision", ours, reference, x, feature, tolerance=1e-11)


def test_attention_path_equals_fused_path_and_timm():
    ours = randomise_(create_model("vit_tiny"), seed=3).eval()
    x = images(2, 1, 32, 32)
    tokens = ours.tokens(x)
    logits, attentions = ours(x, return_attention=True)
    torch.testing.assert_close(logits, ours(x), rtol=0, atol=1e-5)
    assert len(attentions) == 4
    for block, attention in zip(ours.blocks, attentions):
        assert attention.shape == (2, 3, 65, 65)
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 3, 65))
        reference = timm.layers.Attention(96, num_heads=3, qkv_bias=True)
        reference.load_state_dict(block.attn.state_dict())
        reference.fused_attn = False
        caught = []
        reference.attn_drop.register_forward_hook(lambda *call, kept=caught: kept.append(call[2]))
        reference.eval()(block.norm1(tokens))
        torch.testing.assert_close(attention, caught[0], rtol=1e-5, atol=1e-6)
        tokens = block(tokens)
