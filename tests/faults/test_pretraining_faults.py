"""Wrong input to pre-training, probes and converted weights: one clear SeminarError each."""

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.checkpoints import dinov2
from seminar_utils.checkpoints.dinov2 import dinov2_input, load_dinov2
from seminar_utils.data import load
from seminar_utils.evaluation.probes import (
    RawPixels,
    features,
    fit_linear,
    knn_probabilities,
    label_fraction,
    measure_probes,
)
from seminar_utils.models import create_model
from seminar_utils.models.convert_hub import from_hub
from seminar_utils.models.mae import MaskedAutoencoder, load_mae, random_masking
from seminar_utils.models.vit import sincos_positions
from seminar_utils.pretraining.crops import MultiCrop
from seminar_utils.pretraining.dino import DINO, DINOLoss, cosine_schedule
from seminar_utils.pretraining.dino_training import DINOConfig, fit_dino
from seminar_utils.pretraining.mae_training import MAEConfig, fit_mae
from seminar_utils.pretraining.supervised import TrainConfig
from seminar_utils.runtime import SeminarError


@pytest.fixture(scope="module")
def phantoms():
    return load("phantoms", "train", n=16)


def seeded():
    return torch.Generator().manual_seed(0)


# --- views -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crops", "x", "words"),
    [
        (MultiCrop(40, 16), torch.rand(2, 1, 32, 48), "crop of 40 x 40 is larger than the images, 32 x 48"),
        (MultiCrop(16, 40), torch.rand(2, 1, 32, 32), "crop of 40 x 40 is larger than the images, 32 x 32"),
        (MultiCrop(16, 8), torch.rand(1, 32, 32), r"float images \(B, C, H, W\), got torch.float32 \(1, 32, 32\)"),
        (MultiCrop(16, 8), torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "got torch.uint8"),
    ],
)
def test_crops_that_cannot_be_cut(crops, x, words):
    with pytest.raises(SeminarError, match=words):
        crops(x, seeded())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"global_scale": (0.0, 1.0)}, r"lies in \(0, 1\]"),
        ({"local_scale": (0.4, 0.1)}, "low before high"),
        ({"local_scale": (0.4, 1.1)}, r"got \(0.4, 1.1\)"),
        ({"num_local": -1}, "num_local >= 0"),
        ({"global_size": 0}, "sizes >= 1"),
        ({"sigma": (0.0, 1.0)}, "0 < sigma"),
    ],
)
def test_impossible_multi_crops(options, words):
    with pytest.raises(SeminarError, match=words):
        MultiCrop(**options)


# --- DINO ------------------------------------------------------------------------------------------------


def small_dino(**vit):
    options = {"img_size": 16, "dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0, "interpolation": "dino"}
    return DINO(create_model("vit_tiny", **{**options, **vit}), 16, 8, {"hidden_dim": 8, "bottleneck_dim": 4})


CROPS = MultiCrop(16, 8, 1)


def fit_small(dino, images, size=16, **options):
    settings = {"epochs": 1, "batch_size": 8, "warmup": 0, "crops": CROPS, **options}
    return fit_dino(dino, images, DINOConfig(**settings), size=size, progress=False)


def test_dino_meets_wrong_input(phantoms):
    with pytest.raises(SeminarError, match="build it with num_classes=0"):
        small_dino(num_classes=4)
    with pytest.raises(SeminarError, match="build it with num_classes=0"):
        DINO(create_model("resnet_small"), 64, 8)
    with pytest.raises(SeminarError, match="learnt positions for 16 x 16 images, got 8 x 8.*interpolation="):
        fit_small(small_dino(interpolation=None), phantoms)
    with pytest.raises(SeminarError, match="crop of 16 x 16 is larger than the images, 12 x 12"):
        fit_small(small_dino(), phantoms, size=12)
    with pytest.raises(SeminarError, match="16 images do not fill one batch of 64"):
        fit_small(small_dino(), phantoms, batch_size=64)
    with pytest.raises(SeminarError, match=r"warm-up \(2 epochs\) is longer than the run \(1\)"):
        fit_small(small_dino(), phantoms, warmup=2)


@pytest.mark.parametrize(("student", "teacher"), [(12, 5), (11, 4), (4, 0), (2, 4)])
def test_dino_s_loss_wants_rows_that_fit(student, teacher):
    with pytest.raises(SeminarError, match=f"got {teacher} and {student}"):
        DINOLoss(8)(torch.rand(student, 8), torch.rand(teacher, 8), 0)


@pytest.mark.parametrize(
    "options",
    [{"teacher_temp": 0.0}, {"student_temp": -1.0}, {"center_momentum": 1.1}, {"warmup_teacher_temp": 0}],
)
def test_dino_s_loss_settings(options):
    with pytest.raises(SeminarError, match="temperatures are positive"):
        DINOLoss(8, **options)


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"momentum": 1.5}, {"clip": -1.0}]
)
def test_dino_s_settings(options):
    with pytest.raises(SeminarError, match="DINO needs"):
        DINOConfig(**options)


def test_dino_s_loss_of_nan(phantoms):
    dino = small_dino()
    with torch.no_grad():
        dino.student.backbone.cls_token.fill_(float("nan"))
    with pytest.raises(SeminarError, match="the loss is nan in epoch 1: lower lr"):
        fit_small(dino, phantoms)
    with pytest.raises(SeminarError, match="longer than the run"):
        cosine_schedule(1.0, 0.0, epochs=2, steps=5, warmup_epochs=3)


# --- MAE -------------------------------------------------------------------------------------------------


def small_mae(**options):
    return MaskedAutoencoder(16, 4, 1, 16, 1, 2, 16, 1, 2, **options)


IMAGES = torch.rand(2, 1, 16, 16)


@pytest.mark.parametrize("ratio", [0, 1, -0.25, 1.5, 0.99, float("nan"), 0.0, 1.0])
def test_mask_ratios_outside(ratio):
    for call in (small_mae(), small_mae().encode, small_mae().reconstruct):
        with pytest.raises(SeminarError, match=r"inside \(0, 1\)"):
            call(IMAGES, ratio)
    if not 0 < ratio < 1:
        with pytest.raises(SeminarError, match=r"inside \(0, 1\)"):
            MAEConfig(mask_ratio=ratio)


def encoder_only():
    state = {k: v for k, v in small_mae().state_dict().items() if "decoder" not in k and k != "mask_token"}
    return load_mae(small_mae(), state)


def test_an_encoder_only_checkpoint_cannot_paint(phantoms):
    model = encoder_only()
    for call in (model, model.reconstruct):
        with pytest.raises(SeminarError, match="MAE's encoder only, which cannot paint: take the full file"):
            call(IMAGES)
    with pytest.raises(SeminarError, match="no decoder"):
        fit_mae(model, phantoms, MAEConfig(epochs=1, batch_size=8), progress=False)


def test_mae_meets_wrong_input(phantoms):
    with pytest.raises(SeminarError, match=r"reads 16 x 16 images, got \(2, 1, 32, 32\)"):
        small_mae()(torch.rand(2, 1, 32, 32))
    with pytest.raises(SeminarError, match="torch.uint8: convert"):
        small_mae()(torch.zeros(2, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(SeminarError, match=r"noise of shape \(2, 16\).*got \(2, 15\)"):
        random_masking(torch.rand(2, 16, 4), 0.5, torch.rand(2, 15))
    with pytest.raises(SeminarError, match="multiple of the patch, 4: got 18"):
        MaskedAutoencoder(18, 4)
    with pytest.raises(SeminarError, match="width that 4 divides, got 6"):
        sincos_positions(6, 3)
    with pytest.raises(SeminarError, match="16 images do not fill one batch of 64"):
        fit_mae(small_mae(), phantoms, MAEConfig(epochs=1, batch_size=64), progress=False)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0}, {"scale": (0.5, 0.2)}])
def test_mae_s_settings(options):
    with pytest.raises(SeminarError, match="MAE needs"):
        MAEConfig(**options)


# --- run files -------------------------------------------------------------------------------------------


def fit_mae_small(phantoms, path, model=None, **options):
    config = MAEConfig(**{"epochs": 1, "batch_size": 8, "warmup": 0, **options})
    return fit_mae(model or small_mae(), phantoms, config, checkpoint=path, progress=False)


def test_run_files_of_others_and_damaged_ones(phantoms, tmp_path):
    path = tmp_path / "run.pt"
    fit_mae_small(phantoms, path)
    with pytest.raises(SeminarError, match="is of a run with .* not .*delete it or rename"):
        fit_mae_small(phantoms, path, epochs=2)
    with pytest.raises(SeminarError, match="of a run with another model"):
        fit_mae_small(phantoms, path, MaskedAutoencoder(16, 4, 1, 32, 1, 2, 16, 1, 2))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SeminarError, match="not a complete run file"):
        fit_mae_small(phantoms, path)
    fit_small_path = tmp_path / "dino.pt"
    config = DINOConfig(epochs=1, batch_size=8, warmup=0, crops=CROPS)
    fit_dino(small_dino(), phantoms, config, size=16, checkpoint=fit_small_path, progress=False)
    other = DINOConfig(epochs=1, batch_size=8, warmup=0, crops=MultiCrop(16, 8, 2))
    with pytest.raises(SeminarError, match="delete it or rename"):
        fit_dino(small_dino(), phantoms, other, size=16, checkpoint=fit_small_path, progress=False)


def test_layer_decay_outside():
    for value in (0.0, 1.5):
        with pytest.raises(SeminarError, match=r"layer_decay in \(0, 1\]"):
            TrainConfig(layer_decay=value)


# --- weights ---------------------------------------------------------------------------------------------


def test_pools_and_hub_names():
    with pytest.raises(SeminarError, match="unknown way to pool 'mean'"):
        create_model("vit_tiny", global_pool="mean")
    half = {"encoder.layer.0.attention.attention.query.weight": torch.zeros(2, 2)}
    with pytest.raises(SeminarError, match=r"lack blocks.0.attn.k.weight, blocks.0.attn.v.weight"):
        from_hub(half)


def test_dinov2_without_its_file(tmp_path, monkeypatch):
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    with pytest.raises(SeminarError, match="dinov2_vits14_fp16.npz was expected in the folder weights/"):
        load_dinov2()
    monkeypatch.setenv("SEMINAR_DATA", str(tmp_path))
    assert dinov2.dinov2_file() is None
    with pytest.raises(SeminarError, match="was expected"):
        load_dinov2(tmp_path / "absent.npz")


def test_dinov2_from_a_wrong_file(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"embeddings.cls_token": np.zeros((1, 1, 8), np.float16)})
    with pytest.raises(SeminarError, match="do not fit VisionTransformer.*missing"):
        load_dinov2(path)
    np.savez(path, weights=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SeminarError, match="not a complete npz file of numbers"):
        load_dinov2(path)
    np.savez(path, names=np.array(["a", "b"]))
    with pytest.raises(SeminarError, match="not a complete npz file of numbers"):
        load_dinov2(path)
    np.savez_compressed(path, **{"embeddings.cls_token": np.random.default_rng(0).normal(size=(1, 1, 8000))})
    whole = path.read_bytes()
    for damaged in (whole[:200], b"", whole[:3000] + bytes(200) + whole[3200:]):
        path.write_bytes(damaged)
        with pytest.raises(SeminarError, match="not a complete npz file of numbers"):
            load_dinov2(path)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 1, 14, 14), r"got torch.float32 \(1, 1, 14, 14\)"),
        (torch.zeros(1, 3, 14, 14, dtype=torch.uint8), "got torch.uint8"),
        (torch.full((1, 3, 14, 14), 2.0), "already normalised"),
        (torch.full((1, 3, 14, 14), -2.0), "already normalised"),
    ],
)
def test_dinov2_s_input(x, words):
    with pytest.raises(SeminarError, match=words):
        dinov2_input(x)


# --- probes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_label_fractions_outside(fraction):
    with pytest.raises(SeminarError, match=r"lies in \(0, 1\]"):
        label_fraction(np.arange(4), fraction, 0)


def test_probes_meet_wrong_input(phantoms):
    with pytest.raises(SeminarError, match=r"one label an image, got labels of shape \(4, 3\)"):
        label_fraction(np.zeros((4, 3), int), 0.5, 0)
    x, y = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), np.arange(6) % 2
    for arguments in ((x, y[:5], x), (x, y, x[:, :3]), (x[:0], y[:0], x)):
        with pytest.raises(SeminarError, match="kNN needs"):
            knn_probabilities(*arguments, num_classes=2)
    with pytest.raises(SeminarError, match="kNN needs k >= 1"):
        knn_probabilities(x, y, x, 2, k=0)
    with pytest.raises(SeminarError, match="at least two classes"):
        fit_linear(x, np.zeros(6, int), x, y, 2)
    with pytest.raises(SeminarError, match="got no test, val"):
        measure_probes("p", {"raw": RawPixels()}, {"train": phantoms})
    with pytest.raises(SeminarError, match=r"one feature vector.*of a MAE take encoder_of\(mae\)"):
        features(small_mae(), phantoms, size=16)
    with pytest.raises(SeminarError, match="one feature vector"):
        features(nn.Identity(), phantoms, size=16)
    with pytest.raises(SeminarError, match="unknown probe 'svm'"):
        measure_probes(
            "p", {"raw": nn.Flatten()}, dict.fromkeys(("train", "val", "test"), phantoms), probes=["svm"]
        )
