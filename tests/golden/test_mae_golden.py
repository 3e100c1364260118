"""MAE against the official code (golden case 10): patches, masking, codes, predictions, losses, gradients, rates.

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import re

import numpy as np
import pytest
import torch

from seminar_utils.models.mae import (
    PIXEL_EPS,
    MaskedAutoencoder,
    load_mae,
    patchify,
    random_masking,
    unpatchify,
)
from seminar_utils.models.vit import interpolate_positions, sincos_positions
from seminar_utils.pretraining.optim import half_cosine
from seminar_utils.teaching.golden import golden

WORST = {}


@pytest.fixture(scope="module", autouse=True)
def print_the_worst():
    yield
    print("\n" + "; ".join(f"{name}: max |difference| {value:.1e}" for name, value in WORST.items()))


def close(name, got, expected, atol=1e-8):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == np.shape(expected)
    WORST[name] = max(WORST.get(name, 0.0), float(np.abs(got - expected).max()))
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def data():
    return golden("mae")


def images(data):
    return torch.from_numpy(data["in:imgs"])


def make_mae(data, norm_pix_loss):
    ours = {"img_size": "img_size", "patch_size": "patch_size", "dim": "embed_dim", "depth": "depth"}
    ours |= {"num_heads": "num_heads", "decoder_dim": "decoder_embed_dim", "decoder_depth": "decoder_depth"}
    sizes = {name: int(data[f"hp:{key}"]) for name, key in {**ours, "decoder_heads": "decoder_num_heads"}.items()}
    reals = {"mlp_ratio": float(data["hp:mlp_ratio"]), "eps": float(data["hp:layernorm_eps"])}
    model = MaskedAutoencoder(
        in_chans=data["in:imgs"].shape[1], norm_pix_loss=norm_pix_loss, **sizes, **reals
    ).double()
    weights = {key[2:]: torch.from_numpy(value) for key, value in data.items() if key.startswith("w:")}
    return load_mae(model, weights)


def test_patches_there_and_back(data):
    p = int(data["hp:patch_size"])
    patches = patchify(images(data), p)
    close("patchify", patches, data["out:patchify"], atol=0)
    grid = tuple(side // p for side in images(data).shape[-2:])
    assert torch.equal(unpatchify(patches, p, grid), images(data))


def test_masking_keeps_the_smallest_noise_in_its_order(data):
    noise, ratio = torch.from_numpy(data["in:noise"]), float(data["hp:mask_ratio"])
    tokens = torch.from_numpy(data["out:patchify"])
    kept, mask, ids_restore = random_masking(tokens, ratio, noise)
    assert np.array_equal(mask.numpy(), data["out:mask"])
    assert np.array_equal(ids_restore.numpy(), data["out:ids_restore"])
    order = np.argsort(data["in:noise"], axis=1)[:, : kept.shape[1]]
    assert np.array_equal(kept.numpy(), np.take_along_axis(data["out:patchify"], order[:, :, None], axis=1))


def test_codes_and_predictions(data):
    model = make_mae(data, norm_pix_loss=False)
    noise, ratio = torch.from_numpy(data["in:noise"]), float(data["hp:mask_ratio"])
    latent, _, ids_restore = model.encode(images(data), ratio, noise)
    close("latent", latent, data["out:latent"])
    close("pred", model.decode(latent, ids_restore), data["out:pred"])


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_loss_and_gradients(data, norm_pix_loss):
    assert float(data["hp:norm_pix_eps"]) == PIXEL_EPS
    model = make_mae(data, norm_pix_loss)
    loss, pred, mask = model(images(data), float(data["hp:mask_ratio"]), torch.from_numpy(data["in:noise"]))
    close("pred", pred, data["out:pred"])
    close("loss", loss, data[f"out:norm_pix_{norm_pix_loss}:loss"])
    loss.backward()
    prefix = f"out:norm_pix_{norm_pix_loss}:grad:"
    gradients = {key[len(prefix) :]: value for key, value in data.items() if key.startswith(prefix)}
    assert gradients
    for name, expected in gradients.items():
        close("gradients", model.get_parameter(name).grad, expected)


def sincos_cases():
    pattern = r"out:sincos:dim(\d+)_grid(\d+)_(cls|nocls|interpolated_to_grid(\d+))$"
    return [match.groups() for key in golden("mae") if (match := re.match(pattern, key))]


@pytest.mark.parametrize(("dim", "grid", "kind", "new_grid"), sincos_cases())
def test_sincos_positions(data, dim, grid, kind, new_grid):
    expected = data[f"out:sincos:dim{dim}_grid{grid}_{kind}"]
    got = sincos_positions(int(dim), int(grid), cls_token=kind != "nocls")
    if new_grid:
        got = interpolate_positions(got, (int(new_grid),) * 2, "mae")
    close("positions", got if expected.ndim == 3 else got[0], expected)


def test_learning_rate(data):
    names = {"lr": "lr", "min_lr": "min_lr", "warmup": "warmup_epochs", "epochs": "epochs"}
    settings = {ours: float(data[f"hp:lr_schedule:{key}"]) for ours, key in names.items()}
    got = [half_cosine(float(epoch), **settings) for epoch in data["in:lr_schedule:epochs_float"]]
    close("learning rate", got, data["out:lr_schedule"], atol=1e-12)
