"""The course's checkpoints: what is stored comes back, and damage is told."""

import json
import time

import pytest
import torch

from seminar_utils import recipes
from seminar_utils.checkpoints import checkpoint_card, list_checkpoints, load_checkpoint, save_checkpoint
from seminar_utils.checkpoints.course import checkpoint_dir
from seminar_utils.models import create_model
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.recipes.supervised import Supervised
from seminar_utils.runtime import SeminarError


@pytest.fixture
def stored(tmp_path):
    torch.manual_seed(0)
    model = create_model("resnet_small", num_classes=3).eval()
    card = {"model": "resnet_small", "model_args": {"num_classes": 3, "in_chans": 1}}
    save_checkpoint(model, "mine-s0", card, tmp_path)
    return model, tmp_path


def test_a_checkpoint_comes_back_in_half_precision(stored):
    model, folder = stored
    loaded, x = load_checkpoint("mine-s0", folder=folder), torch.rand(2, 1, 32, 32)
    assert not loaded.training
    assert torch.allclose(loaded(x), model(x), atol=2e-2)
    for name, value in model.state_dict().items():
        assert value.dtype == loaded.state_dict()[name].dtype
        if value.ndim < 2:
            assert torch.equal(loaded.state_dict()[name], value)


def test_damaged_missing_and_unknown_files_are_told(stored):
    _, folder = stored
    path = folder / "mine-s0.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(SeminarError, match="damaged"):
        load_checkpoint("mine-s0", folder=folder)
    path.unlink()
    with pytest.raises(SeminarError, match="seminar pretrain mine-s0"):
        load_checkpoint("mine-s0", folder=folder)
    with pytest.raises(SeminarError, match="resnet_small-phantoms-s0"):
        load_checkpoint("resnet_small-phantom-s0")


@pytest.mark.parametrize("name", list_checkpoints())
def test_every_shipped_checkpoint_loads_and_its_card_is_complete(name):
    model, card = load_checkpoint(name), checkpoint_card(name)
    size, channels = card["size"], card["model_args"]["in_chans"]
    read = getattr(model, card.get("method", "forward"))  # CLIP's forward wants captions, too
    returned = read(torch.rand(2, channels, size, size))
    returned = returned if isinstance(returned, tuple) else (returned,)
    encoder = card["model_args"].get("num_classes") == 0  # without a classifier
    width = model.num_features if encoder else len(card["class_names"])
    expected = card.get("outputs", [[width]])  # without the batch; [] is one number
    assert [list(part.shape) for part in returned] == [[2, *shape] if shape else [] for shape in expected]
    assert {"command", "seed", "data", "metrics", "intervals", "sha256", "licence", "commit"} <= card.keys()
    assert card["intervals"] and card["intervals"].keys() <= card["metrics"].keys()
    for metric, (low, high) in card["intervals"].items():
        assert low <= card["metrics"][metric] <= high


def test_the_promised_checkpoints_ship_and_stay_small():
    promised = {f"resnet_small-{data}-s{seed}" for data in ("phantoms", "pneumoniamnist") for seed in range(3)}
    promised |= {
        f"{model}-{data}-s0"
        for model in ("vit_tiny", "swin_tiny", "dino_tiny", "mae_tiny")
        for data in ("phantoms", "pneumoniamnist")
    }
    promised |= {f"fcn_small-{data}-s{seed}" for data in ("phantoms", "nuclei") for seed in range(3)}
    promised |= {"clip_tiny-phantoms-s0", "sam_tiny-phantoms-s0", "sam_tiny_plain-phantoms-s0"}
    assert promised <= set(list_checkpoints())
    shipped = [path for path in checkpoint_dir().iterdir() if "-wbc-" not in path.name]  # which do not ship
    assert sum(path.stat().st_size for path in shipped) < 20e6


@pytest.mark.parametrize("name", [n for n in list_checkpoints() if "phantoms" in n])
def test_a_card_states_what_its_weights_reach(name):
    recipe, _ = recipes.parse_name(name)
    metrics, _ = recipe.evaluate(load_checkpoint(name), recipe.make_sets())
    for key, value in checkpoint_card(name)["metrics"].items():
        assert metrics[key] == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize("model", ["resnet_small", "swin_tiny"])
def test_a_recipe_runs_from_images_to_card(model, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    with pytest.raises(SeminarError, match="smoke"):
        recipes.pretrain(f"{model}-phantoms-s0")
    card = recipes.pretrain(f"{model}-phantoms-s7", folder=tmp_path, progress=False)
    assert card["seed"] == 7 and load_checkpoint(f"{model}-phantoms-s7", folder=tmp_path)
    row = json.loads((tmp_path / "results.jsonl").read_text())
    assert row["id"] == card["result_id"] and row["metrics"]["accuracy"] == card["metrics"]["accuracy"]


def test_a_recipe_of_captions_runs_from_images_to_card(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    card = recipes.pretrain("clip_tiny-phantoms-s1", folder=tmp_path, progress=False)
    model, tokenizer = load_checkpoint("clip_tiny-phantoms-s1", folder=tmp_path), WordTokenizer(card["words"])
    assert tokenizer.vocab_size == model.config.vocab_size and {"round", "upper", "b"} <= set(card["words"])
    logits = model(torch.rand(2, 1, 64, 64), tokenizer(["a round lesion", "a dark lesion", "scanner A"]))
    assert logits.shape == (2, 3)
    assert card["metrics"].keys() == card["intervals"].keys()
    assert set(card["metrics"]) == {f"zero_shot_{name}" for name in ("place", "tone", "size", "type")}
    assert {"val_place", "val_type", "loss"} <= card["history"][0].keys()
    assert [row["epoch"] for row in card["history"]] == [1, 2] and card["second"]["epochs"] == 1  # two rounds
    assert not list(tmp_path.glob("*.pt"))


def test_a_recipe_without_labels_runs_from_images_to_card(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    card = recipes.pretrain("mae_tiny-phantoms-s1", folder=tmp_path, progress=False)
    model = load_checkpoint("mae_tiny-phantoms-s1", folder=tmp_path)
    loss, pred, mask = model(torch.rand(2, 1, 32, 32))
    assert [[], list(pred.shape[1:]), list(mask.shape[1:])] == card["outputs"]
    assert card["metrics"].keys() == card["intervals"].keys() and "knn_balanced_accuracy" in card["metrics"]


@pytest.mark.parametrize("name", ["resnet_small-phantoms", "resnet_smal-phantoms-s0", "x-s-1"])
def test_unknown_recipes_are_named(name):
    with pytest.raises(SeminarError, match="resnet_small-phantoms-s0"):
        recipes.pretrain(name)


def test_an_interrupted_run_tells_the_time_of_all_its_sessions(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    real = Supervised.train

    def interrupted(*arguments):
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(Supervised, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipes.pretrain("resnet_small-phantoms-s8", folder=tmp_path, progress=False)
    first = json.loads((tmp_path / "resnet_small-phantoms-s8.sessions.json").read_text())
    assert len(first) == 1 and first[0] >= 0.3
    (tmp_path / "resnet_small-phantoms-s8.sessions.json").write_text("[1000.0]")
    monkeypatch.setattr(Supervised, "train", real)
    card = recipes.pretrain("resnet_small-phantoms-s8", folder=tmp_path, progress=False)
    assert 1000 < card["seconds"] < 1100
    assert not list(tmp_path.glob("*.sessions.json")) and not list(tmp_path.glob("*.pt"))
