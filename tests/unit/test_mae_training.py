"""MAE's parts and its loop: masks, pictures, weights, the way to fine-tuning, an exact resume."""

import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.convert_hub import from_hub
from seminar_utils.models.mae import (
    MaskedAutoencoder,
    encoder_of,
    load_mae,
    patch_statistics,
    patchify,
    random_masking,
)
from seminar_utils.models.parity import randomise_
from seminar_utils.pretraining import mae_training
from seminar_utils.pretraining.mae_training import MAEConfig, build_optimizer, fit_mae, learning_rate
from seminar_utils.pretraining.optim import half_cosine
from seminar_utils.pretraining.supervised import TrainConfig, fit, layer_groups
from seminar_utils.pretraining.supervised import build_optimizer as supervised_optimizer
from seminar_utils.runtime import SeminarError


def small_mae(norm_pix_loss=True, in_chans=1):
    torch.manual_seed(0)
    return MaskedAutoencoder(16, 4, in_chans, 32, 2, 2, 16, 1, 2, norm_pix_loss=norm_pix_loss)


def images(count=3, channels=1):
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(1))


# --- masks and loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "kept"), [(0.25, 12), (0.5, 8), (0.75, 4), (0.9, 1)])
def test_the_ratio_decides_how_many_patches_stay(ratio, kept):
    tokens = torch.randn(5, 16, 8)
    visible, mask, _ = random_masking(tokens, ratio)
    assert visible.shape == (5, kept, 8) and mask.sum(dim=1).tolist() == [16 - kept] * 5
    for i in range(5):  # the visible ones are those the mask says, whatever their order
        assert set(visible[i, :, 0].tolist()) == set(tokens[i, mask[i] == 0, 0].tolist())


def test_masks_differ_between_images_and_follow_the_seed():
    tokens = torch.randn(64, 16, 4)
    torch.manual_seed(1)
    first = random_masking(tokens, 0.75)[1]
    torch.manual_seed(1)
    assert torch.equal(first, random_masking(tokens, 0.75)[1])
    assert len({tuple(row.tolist()) for row in first}) > 40 and abs(first.mean(dim=0) - 0.75).max() < 0.25


def test_the_loss_counts_hidden_patches_only():
    model, x = small_mae(), images()
    noise = torch.rand(3, 16)
    _, pred, mask = model(x, 0.75, noise)
    loss = model.loss(x, pred, mask)
    elsewhere = pred + 100 * (1 - mask)[:, :, None]
    assert torch.equal(model.loss(x, elsewhere, mask), loss)
    assert model.loss(x, pred + mask[:, :, None], mask) != loss


def test_the_encoder_does_not_see_hidden_pixels():
    model, x = small_mae(norm_pix_loss=False).eval(), images()
    noise = torch.rand(3, 16)
    _, pred, mask = model(x, 0.75, noise)
    hidden = mask.view(3, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    _, other, _ = model(torch.where(hidden == 1, torch.rand(x.shape), x), 0.75, noise)
    assert torch.equal(pred, other)


def test_positions_stay_as_they_are():
    model = small_mae()
    model(images())[0].backward()
    still = {name for name, p in model.named_parameters() if p.grad is None}
    assert still == {"pos_embed", "decoder_pos_embed"}
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)


# --- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_perfect_prediction_gives_the_picture_back(norm_pix_loss, monkeypatch):
    model, x = small_mae(norm_pix_loss, 3), images(2, 3)
    target = patchify(x, 4)
    if norm_pix_loss:
        mean, std = patch_statistics(target)
        target = (target - mean) / std
    monkeypatch.setattr(model, "decode", lambda latent, ids_restore: target)
    loss, _, _ = model(x)
    seen = model.reconstruct(x, fill=0.25)
    assert loss < 1e-10
    torch.testing.assert_close(seen.painted, x)
    torch.testing.assert_close(seen.pasted, x)
    hidden = seen.mask.view(2, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).bool()
    hidden = hidden.expand_as(x)
    assert torch.equal(seen.masked[~hidden], x[~hidden]) and seen.masked[hidden].eq(0.25).all()


def test_visible_patches_are_pasted_unchanged():
    seen, x = small_mae().reconstruct(images()), images()
    visible = seen.mask.view(3, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3) == 0
    assert torch.equal(seen.pasted[visible], x[visible]) and not torch.equal(seen.pasted, x)
    assert torch.equal(seen.pasted[~visible], seen.painted[~visible])


# --- weights ---------------------------------------------------------------------------------------------


def test_official_names_full_and_encoder_only():
    source = randomise_(small_mae(), seed=2).eval()
    state, x, noise = source.state_dict(), images(), torch.rand(3, 16)
    full = load_mae(small_mae(), {"model": state}).eval()
    assert torch.equal(full(x, 0.75, noise)[1], source(x, 0.75, noise)[1])
    with pytest.raises(SeminarError, match="do not fit"):
        load_mae(small_mae(), {k: v for k, v in state.items() if k != "decoder_pred.bias"})
    encoder = {k: v for k, v in state.items() if not k.startswith("decoder") and k != "mask_token"}
    part = load_mae(small_mae(), encoder).eval()
    assert not part.has_decoder and full.has_decoder
    assert torch.equal(part.encode(x, 0.75, noise)[0], source.encode(x, 0.75, noise)[0])
    assert encoder_of(part, num_classes=3)(x).shape == (3, 3)


def test_a_fresh_fc_norm_reads_the_mean_of_the_patches():
    mae = randomise_(small_mae(), seed=2)
    vit = encoder_of(mae, num_classes=4, drop_path=0.1).eval()
    names = {name for name, _ in vit.named_parameters()}
    assert "fc_norm.weight" in names and "norm.weight" not in names and vit.pos_embed.requires_grad
    assert vit.fc_norm.weight.eq(1).all() and vit.blocks[1].drop_path.rate == 0.1
    patches = vit.forward_features(images())[:, 1:]
    torch.testing.assert_close(vit(images()), vit.head(vit.fc_norm(patches.mean(dim=1))))
    bigger = encoder_of(mae)(torch.rand(2, 1, 24, 32))  # positions stretched by MAE's rule
    assert bigger.shape == (2, 32)


# --- fine-tuning with layer-wise rates -------------------------------------------------------------------


def test_lower_layers_learn_slower():
    model = create_model("vit_tiny", depth=4, global_pool="avg")
    model.patch_embed.proj.bias.requires_grad_(False)
    scale, decay = {}, {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in layer_groups(model, 0.05, 0.5):
        for p in group["params"]:
            scale[names[id(p)]], decay[names[id(p)]] = group["lr_scale"], group["weight_decay"]
    assert set(scale) == set(names.values()) - {"patch_embed.proj.bias"}
    assert {scale[name] for name in ("cls_token", "pos_embed", "patch_embed.proj.weight")} == {0.5**5}
    assert [scale[f"blocks.{i}.mlp.fc1.weight"] for i in range(4)] == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert scale["fc_norm.weight"] == scale["head.weight"] == scale["head.bias"] == 1
    assert {name for name in decay if decay[name]} == {
        name for name in scale if name.endswith("weight") and model.get_parameter(name).ndim > 1
    }


def test_layer_decay_in_the_supervised_loop():
    sets = [load("phantoms", split, n=32, task="tone") for split in ("train", "val")]
    model = encoder_of(small_mae(), num_classes=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(epochs=1, lr=1e-3, warmup=0, batch_size=32, layer_decay=0.1, weight_decay=0.0)
    fit(model, *sets, config, size=16, progress=False)
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    assert moved["head.weight"] == pytest.approx(1e-3, rel=0.05)  # Adam's first step is the rate
    assert moved["blocks.1.mlp.fc1.weight"] == pytest.approx(1e-4, rel=0.05)
    assert moved["patch_embed.proj.weight"] == pytest.approx(1e-6, rel=0.05)


def test_without_layer_decay_nothing_changes():
    groups = supervised_optimizer(create_model("vit_tiny"), TrainConfig()).param_groups
    assert len(groups) == 2 and not any("lr_scale" in group for group in groups)
    with pytest.raises(SeminarError, match="needs a model with blocks, such as a ViT, got ResNet"):
        supervised_optimizer(create_model("resnet_small"), TrainConfig(layer_decay=0.65))


# --- the loop --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantoms():
    return load("phantoms", "train", n=96)


def run(phantoms, epochs=4, **options):
    model = small_mae()
    config = MAEConfig(epochs=epochs, batch_size=32, lr=1e-2, warmup=1, seed=3)
    return model, fit_mae(model, phantoms, config, progress=False, **options)


def test_it_learns(phantoms):
    _, history = run(phantoms, epochs=12)
    losses = [row["loss"] for row in history]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("steps_done", [1, 7])
def test_a_killed_run_ends_with_the_same_weights(phantoms, tmp_path, monkeypatch, steps_done):
    expected, expected_history = run(phantoms)
    real, calls = mae_training.random_resized_crop, []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) > steps_done:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mae_training, "random_resized_crop", dies_later)
        with pytest.raises(KeyboardInterrupt):
            run(phantoms, checkpoint=tmp_path / "run.pt")
    model, history = run(phantoms, checkpoint=tmp_path / "run.pt")
    assert history == expected_history
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters()))


def test_mixed_precision_keeps_the_loss_in_float32(phantoms, monkeypatch):
    """What CUDA does, done on the CPU: the network in bfloat16, the loss and the weights in float32."""
    _, exact = run(phantoms, epochs=2)
    monkeypatch.setattr(mae_training, "mixed_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    model, history = run(phantoms, epochs=2)
    assert history != exact and history[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images())[0].dtype == torch.float32


def test_an_evaluation_joins_the_history(phantoms):
    _, history = run(phantoms, epochs=2, evaluate=lambda model: {"training": float(model.training)})
    assert [row["training"] for row in history] == [1.0, 1.0] and history[1]["lr"] > 0


def test_the_rate_is_set_for_every_iteration(phantoms):
    seen = []

    class Spy(torch.optim.SGD):
        def step(self):
            seen.append(self.param_groups[0]["lr"])

    model, config = small_mae(), MAEConfig(epochs=4, warmup=2, lr=1.0, batch_size=256)
    optimizer = Spy(model.parameters(), lr=0.1)
    batches = [torch.rand(2, 1, 16, 16)] * 4
    mae_training.train_epoch(model, batches, optimizer, torch.Generator(), 1, 4, config)
    assert seen == [0.5, 0.625, 0.75, 0.875]
    assert learning_rate(config, 2) == 1 and learning_rate(config, 3) == pytest.approx(0.5)
    assert half_cosine(20, 1.0, 0.1, 2, 20) == pytest.approx(0.1)


def test_the_optimiser_is_the_paper_s():
    decayed, plain = build_optimizer(small_mae(), MAEConfig()).param_groups
    assert decayed["betas"] == (0.9, 0.95) and decayed["weight_decay"] == 0.05 and plain["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in plain["params"])
    assert np.isclose(learning_rate(MAEConfig(batch_size=512), 40), 3e-4)


# --- the hub's names -------------------------------------------------------------------------------------

TOP = {"cls_token": "vit.embeddings.cls_token", "pos_embed": "vit.embeddings.position_embeddings"}
TOP |= {f"patch_embed.proj.{k}": f"vit.embeddings.patch_embeddings.projection.{k}" for k in ("weight", "bias")}
TOP |= {f"norm.{k}": f"vit.layernorm.{k}" for k in ("weight", "bias")}


def hub_names(state, old):
    """The same weights as the hub's files name them, or as transformers 5 does."""
    block = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    block["attn.proj"] = "attention.output.dense" if old else "attention.o_proj"
    block |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"} if old else {}
    letters = ["attention.query", "attention.key", "attention.value"] if old else ["q_proj", "k_proj", "v_proj"]
    found = {}
    for name, value in state.items():
        if "blocks." not in name:
            found[TOP.get(name, f"decoder.{name}")] = value
            continue
        start = "vit.encoder.layer." if old else "vit.layers."
        name = name.replace("decoder_blocks.", "decoder.decoder_layers.").replace("blocks.", start)
        for ours, theirs in block.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        parts = value.chunk(3) if "qkv" in name else [value]
        found |= {name.replace("attn.qkv", f"attention.{letter}"): part for letter, part in zip(letters, parts)}
    return found


@pytest.mark.parametrize("old", [True, False])
def test_hub_names_old_and_new(old):
    state = randomise_(small_mae(), seed=2).state_dict()
    theirs = hub_names(state, old)
    assert not set(theirs) & set(state)
    ours = from_hub(theirs)
    assert set(ours) == set(state) and all(torch.equal(ours[name], state[name]) for name in state)
