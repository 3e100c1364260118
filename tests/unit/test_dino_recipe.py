"""The DINO recipe: from unlabelled images to a card, and the options that it needs of the model and the head."""

import pytest
import torch

from seminar_utils import recipes
from seminar_utils.checkpoints import load_checkpoint
from seminar_utils.models import create_model
from seminar_utils.pretraining.dino import DINOHead
from seminar_utils.runtime import SeminarError


def test_the_recipe_ships_the_teachers_backbone(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    card = recipes.pretrain("dino_tiny-phantoms-s7", folder=tmp_path, progress=False)
    assert {"knn_balanced_accuracy", "linear_balanced_accuracy"} == set(card["metrics"])
    assert {"teacher_entropy", "kl", "val_knn_balanced_accuracy"} <= card["history"][0].keys()
    model = load_checkpoint("dino_tiny-phantoms-s7", folder=tmp_path)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, model.num_features)


def test_a_convolutional_stem_gives_the_same_grid():
    plain, stem = (create_model("vit_tiny", num_classes=0, conv_stem=c) for c in (False, True))
    x = torch.rand(2, 1, 32, 32)
    assert plain.tokens(x).shape == stem.tokens(x).shape
    with pytest.raises(SeminarError, match="power of 2"):
        create_model("vit_tiny", img_size=30, patch_size=6, conv_stem=True)
    with pytest.raises(SeminarError, match="expected images"):
        stem(torch.rand(2, 3, 32, 32))


def test_batchnorm_in_the_head_pulls_alike_features_apart():
    torch.manual_seed(0)
    features = torch.randn(1, 16) + 0.01 * torch.randn(64, 16)
    spread = {bn: DINOHead(16, 8, 32, 8, use_bn=bn)(features).std(dim=0).mean() for bn in (False, True)}
    assert spread[True] > 5 * spread[False]
