"""Our CLIP against open_clip's: same random weights, same features, logits and gradients; the same token ids."""

import math

import pytest
import torch
from torch import nn

from seminar_utils.models import create_model
from seminar_utils.models.clip import CLIP, ClipConfig
from seminar_utils.models.clip_blocks import QuickGELU
from seminar_utils.models.convert import load_weights
from seminar_utils.models.parity import parity_line, parity_report, randomise_, relative_difference
from seminar_utils.models.tokenizers import ClipTokenizer
from seminar_utils.torchvision_fix import import_torchvision

import_torchvision()
open_clip = pytest.importorskip("open_clip")

CAPTIONS = [
    "a photo of a cat",
    "Chest X-ray: an opacity in the LEFT lower lobe (3.5 cm), naïve reader's note",
    "histology",
    "",
]


class Text(nn.Module):
    """The text tower alone, as a module that reads ids."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.encode_text(ids)


class Against(nn.Module):
    """The whole model as a function of the images: its logits against fixed captions."""

    def __init__(self, model, ids, logits):
        super().__init__()
        self.model, self.ids, self.logits = model, ids, logits

    def forward(self, images):
        return self.logits(self.model, images, self.ids)


def images(batch, channels, height, width):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def check(title, ours, reference, x, feature=None, tolerance=1e-5):
    report = parity_report(ours, reference, x, feature=feature)
    print("\n" + parity_line(title, report))
    assert all(value <= tolerance for key, value in report.items() if key != "max_difference"), report


def check_all(title, ours, reference, x, ids, block, tolerance=1e-5):
    """Image tower, text tower, and both with the temperature."""
    load_weights(ours, reference.state_dict())
    feature = (f"transformer.resblocks.{block}",) * 2
    check(f"{title}, image", ours.visual, reference.visual, x, feature, tolerance)
    feature = (f"model.transformer.resblocks.{block}",) * 2
    check(f"{title}, text", Text(ours), Text(reference), ids, feature, tolerance)
    pair = (
        Against(ours, ids, lambda model, x, ids: model(x, ids)),
        Against(reference, ids, lambda model, x, ids: model.get_logits(x, ids)[0]),
    )
    check(f"{title}, logits", *pair, x, None, tolerance)


@pytest.fixture(scope="module")
def vit_b_32():
    return randomise_(open_clip.create_model("ViT-B-32-quickgelu", pretrained=None), seed=3).eval()


def test_clip_vit_b_32_equals_open_clip(vit_b_32):
    ids = open_clip.get_tokenizer("ViT-B-32-quickgelu")(CAPTIONS[:3])
    check_all(
        "clip_vit_b_32 vs open_clip", create_model("clip_vit_b_32"), vit_b_32, images(2, 3, 224, 224), ids, 5
    )


def small_pair(quick_gelu, image_size=32, in_chans=3):
    """The same small model twice, ours and open_clip's."""
    vision = open_clip.CLIPVisionCfg(layers=2, width=48, head_width=16, patch_size=8, image_size=image_size)
    text = open_clip.CLIPTextCfg(context_length=16, vocab_size=60, width=32, heads=4, layers=2)
    reference = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu)
    sizes = {"vision_width": 48, "vision_layers": 2, "vision_heads": 3, "image_size": image_size, "patch_size": 8}
    words = {"context_length": 16, "vocab_size": 60, "text_width": 32, "text_layers": 2, "text_heads": 4}
    ours = CLIP(ClipConfig(embed_dim=24, quick_gelu=quick_gelu, in_chans=in_chans, **sizes, **words))
    return ours.double(), randomise_(reference, seed=3).double()


def some_ids(batch=5, length=16):
    """Captions of different lengths: words, then the end token 59, then zeros."""
    ids = torch.randint(1, 59, (batch, length), generator=torch.Generator().manual_seed(2))
    for row, end in zip(ids, (3, 15, 7, 1, 10)):
        row[end:] = 0
        row[end] = 59
    return ids


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_small_clip_equals_open_clip_in_float64(quick_gelu):
    ours, reference = small_pair(quick_gelu)
    title = f"small CLIP (float64, {'QuickGELU' if quick_gelu else 'GELU'}) vs open_clip"
    check_all(title, ours, reference, images(3, 3, 32, 32).double(), some_ids(), 0, tolerance=1e-11)


def test_the_activation_is_not_in_the_file_and_matters():
    ours, _ = small_pair(True)
    other, reference = small_pair(False)
    load_weights(ours, reference.state_dict())
    load_weights(other, reference.state_dict())
    x = images(3, 3, 32, 32).double()
    difference = relative_difference(ours.encode_image(x), other.encode_image(x))
    print(f"\nQuickGELU for GELU changes the image features by {difference:.1e}")
    assert difference > 1e-3
    x = torch.linspace(-6, 6, 2001)
    assert 0.015 < (QuickGELU()(x) - nn.functional.gelu(x)).abs().max() < 0.025


def test_normalised_features_equal_open_clip():
    ours, reference = small_pair(True)
    load_weights(ours, reference.state_dict()).eval()
    x, ids = images(3, 3, 32, 32).double(), some_ids()
    for got, expected in [
        (ours.encode_image(x, normalize=True), reference.eval().encode_image(x, normalize=True)),
        (ours.encode_text(ids, normalize=True), reference.encode_text(ids, normalize=True)),
    ]:
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(got.norm(dim=1), torch.ones(len(got)).double())


def test_stretched_positions_equal_open_clip_s_resized_file():
    from open_clip.model import resize_pos_embed

    ours, _ = small_pair(True)
    _, larger = small_pair(True, image_size=64)
    randomise_(ours.float(), seed=4)
    state = dict(ours.state_dict())
    resize_pos_embed(state, larger)
    ours.visual.interpolation = "timm"
    larger.float().load_state_dict(state)
    x = images(2, 3, 64, 64)
    assert relative_difference(ours.eval().encode_image(x), larger.eval().encode_image(x)) < 1e-5


def test_token_ids_equal_open_clip():
    reference = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    ours = ClipTokenizer()
    assert torch.equal(ours(CAPTIONS), reference(CAPTIONS))
    assert ours.vocab_size == reference.vocab_size == 49408
    with pytest.warns(UserWarning, match="cut off"):
        assert torch.equal(ours("lesion " * 100), reference("lesion " * 100))


def test_fresh_temperature_is_the_paper_s():
    assert create_model("clip_tiny").logit_scale.item() == pytest.approx(math.log(1 / 0.07))
