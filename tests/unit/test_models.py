"""The networks: sizes, names, shapes, building blocks, conversion of weights, the parity tools."""

import pytest
import torch
from torch import nn

from seminar_utils.models import create_model, list_models
from seminar_utils.models.convert import fit_report, from_torchvision, load_weights
from seminar_utils.models.layers import Block, DropPath, LayerNorm2d, LayerScale
from seminar_utils.models.parity import max_difference, parity_report, randomise_, relative_difference
from seminar_utils.models.resnet import make_norm
from seminar_utils.models.vit import interpolate_positions
from seminar_utils.runtime import SeminarError
from seminar_utils.torchvision_fix import import_torchvision


def count(model):
    return sum(p.numel() for p in model.parameters())


def images(batch=2, channels=1, size=32):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_registry_builds_the_models_of_the_papers():
    sizes = {"resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032}
    sizes |= {"vit_small_14": 22056192, "vit_small_16": 22050664, "vit_b_16": 86567656}
    sizes |= {"swin_t": 28288354, "swin_s": 49606258, "swin_b": 87768224}
    sizes |= {"clip_vit_b_32": 151277313, "clip_vit_b_16": 149620737, "biomedclip": 195902721}
    sizes |= {"mae_vit_b": 111907840}
    with torch.device("meta"):
        assert {name: count(create_model(name)) for name in sizes} == sizes
    sam = {"sam_tiny", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam_vit_b", "lite_medsam"}  # test_sam_parts.py
    prepared = {f"resnet_small_{task}" for task in ("rotation", "simclr", "neighbors")}  # test_two_heads.py
    tiny = {"resnet_small", "fcn_small", "vit_tiny", "mae_tiny", "swin_tiny", "clip_tiny"}
    assert set(list_models()) == {*sizes, *sam, *prepared, *tiny}
    assert 165_000 < count(create_model("resnet_small")) < 185_000
    assert 400_000 < count(create_model("vit_tiny")) < 500_000
    assert 500_000 < count(create_model("swin_tiny")) < 600_000
    assert 400_000 < count(create_model("clip_tiny")) < 500_000
    assert 550_000 < count(create_model("mae_tiny")) < 650_000


@pytest.mark.parametrize("size", [28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["bn", "gn", "ln"])
def test_resnet_small_shapes(norm, channels, size):
    model = create_model("resnet_small", num_classes=4, in_chans=channels, norm=norm)
    x = images(2, channels, size)
    assert model(x).shape == (2, 4)
    assert model.embed(x).shape == (2, model.num_features) == (2, 64)
    side = (size + 3) // 4
    assert model.forward_features(x).shape == (2, 64, side, side)


def test_vit_tiny_shapes_and_head():
    model = create_model("vit_tiny", num_classes=3).eval()
    x = images()
    assert model.forward_features(x).shape == (2, 65, 96)
    assert torch.equal(model(x), model.head(model.embed(x)))
    assert create_model("vit_tiny", num_classes=0)(x).shape == (2, 96)


@pytest.mark.parametrize("convention", ["dino", "timm", "torchvision"])
def test_vit_reads_other_sizes_when_told_how(convention):
    model = create_model("vit_tiny", interpolation=convention).eval()
    x = torch.rand(1, 1, 40, 24)
    expected = interpolate_positions(model.pos_embed, (10, 6), convention)
    cls = model.cls_token
    by_hand = torch.cat([cls, model.patch_embed(x)], dim=1) + expected
    assert torch.equal(model.tokens(x), by_hand)
    assert model(x).shape == (1, 6)


def test_same_seed_same_model():
    for name in ("resnet_small", "vit_tiny", "swin_tiny", "clip_tiny"):
        torch.manual_seed(5)
        first = create_model(name)
        torch.manual_seed(5)
        second = create_model(name)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize("name", ["resnet_small", "vit_tiny", "swin_tiny"])
def test_every_parameter_learns_and_images_do_not_mix(name):
    model = randomise_(create_model(name), seed=1).eval()
    x = images(3)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert relative_difference(model(x[1:2]), model(x)[1:2]) < 1e-5
    assert max_difference(model(x)[0], model(x)[1]) > 0.01  # randomised weights keep the image visible


def test_norms_normalise_what_they_should():
    x = 5 + 3 * torch.randn(4, 16, 6, 6)
    out = {kind: make_norm(kind, 16)(x) for kind in ("bn", "gn", "ln")}
    assert out["bn"].mean(dim=(0, 2, 3)).abs().max() < 1e-5  # each channel over batch and pixels
    assert out["gn"].reshape(4, 8, -1).mean(-1).abs().max() < 1e-5  # each group in each image
    assert out["ln"].mean(dim=1).abs().max() < 1e-5  # the channels of each pixel
    assert isinstance(make_norm("ln", 16), nn.LayerNorm) and isinstance(LayerNorm2d(16), nn.LayerNorm)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 3, 2))
    values = out.flatten(1)
    assert torch.equal(values.min(1).values, values.max(1).values)  # all or nothing per image
    torch.testing.assert_close(values.unique(), torch.tensor([0, 1 / 0.75]))
    assert abs(out.mean() - 1) < 0.03
    assert torch.equal(drop.eval()(out), out)


def test_drop_path_rates_rise_with_depth():
    rates = [block.drop_path.rate for block in create_model("vit_tiny", drop_path=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_layer_scale_of_zero_closes_the_branches():
    block, x = Block(8, 2, layer_scale=0.0), torch.randn(1, 5, 8)
    assert torch.equal(block(x), x)
    assert torch.equal(LayerScale(8, 0.5)(x), 0.5 * x)


def old_names(state_dict):
    return {
        k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): v
        for k, v in state_dict.items()
    }


def test_torchvision_names_old_and_new():
    vit = import_torchvision().models.VisionTransformer
    reference = vit(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=96, num_classes=5
    )
    state = reference.state_dict()
    ours = create_model("vit_tiny", in_chans=3, patch_size=8, dim=24, depth=2, num_classes=5)
    assert list(from_torchvision(state)) != list(state)
    load_weights(ours, from_torchvision(state))
    load_weights(ours, from_torchvision(old_names(state)))
    resnet = create_model("resnet_small").state_dict()
    assert list(from_torchvision(resnet)) == list(resnet)


def test_load_weights_accepts_files_without_batch_counters():
    source = randomise_(create_model("resnet_small"), seed=2)
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    ours = load_weights(create_model("resnet_small"), state)
    assert torch.equal(ours.eval()(images()), source.eval()(images()))


def test_load_weights_says_what_does_not_fit_and_changes_nothing():
    model = create_model("resnet_small")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = dict(randomise_(create_model("resnet_small", num_classes=4), seed=2).state_dict())
    state["head.weight"] = state.pop("bn1.weight")
    report = fit_report(model, state)
    assert report["missing"] == ["bn1.weight"] and report["unexpected"] == ["head.weight"]
    assert report["wrong shape"][0] == "fc.weight (expected (6, 64), got (4, 64))"
    with pytest.raises(
        SeminarError, match=r"ResNet: 1 missing: bn1.weight; 1 unexpected: head.weight; 2 wrong shape"
    ):
        load_weights(model, state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_load_weights_hints():
    model = create_model("resnet_small")
    with pytest.raises(SeminarError, match="strip it"):
        load_weights(model, {f"module.{k}": v for k, v in model.state_dict().items()})
    with pytest.raises(SeminarError, match=r"file\['model'\]"):
        load_weights(model, {"model": model.state_dict(), "epoch": 3})
    with pytest.raises(SeminarError, match="from names to tensors, got list"):
        load_weights(model, [1, 2])


def test_randomise_fills_everything_and_repeats():
    for name in ("resnet_small", "vit_tiny", "swin_tiny", "clip_tiny"):
        model = create_model(name)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        randomise_(model, seed=1)
        assert not any(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert all((v > 0).all() for k, v in model.state_dict().items() if k.endswith("running_var"))
        again = randomise_(create_model(name), seed=1).state_dict()
        assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


def test_differences():
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert max_difference(a, b) == 0.5
    assert relative_difference(a, b) == 0.125
    assert not relative_difference(torch.tensor([float("nan"), 1.0]), b) <= 1e-5  # NaN never passes
    with pytest.raises(SeminarError, match="shapes differ"):
        max_difference(a, b[:1])


def test_parity_report_sees_one_changed_weight_and_a_nan():
    reference, ours = (randomise_(create_model("resnet_small"), seed=1) for _ in range(2))
    assert set(parity_report(ours, reference, images()).values()) == {0.0}
    with torch.no_grad():
        ours.layer2[0].conv1.weight[0, 0, 0, 0] += 0.01
    report = parity_report(ours, reference, images(), feature=("layer1", "layer1"))
    assert report["feature"] == 0 and report["output"] > 1e-5 and report["gradient"] > 1e-5
    with torch.no_grad():
        ours.fc.bias[0] = float("nan")
    assert not parity_report(ours, reference, images())["output"] <= 1e-5
    with pytest.raises(SeminarError, match="only one model"):
        parity_report(create_model("vit_tiny"), reference, images())
