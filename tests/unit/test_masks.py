"""Segmentation: the network, its training, and the table of entropy at every pixel."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from seminar_utils import recipes
from seminar_utils.adaptation import BatchNormAdapt, Tent
from seminar_utils.checkpoints import load_checkpoint
from seminar_utils.data import load
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.segmentation import dice
from seminar_utils.models import create_model
from seminar_utils.models.parity import randomise_
from seminar_utils.pretraining import supervised
from seminar_utils.pretraining.masks import MaskSet, dice_of_each, judge_masks, mask_loss, mask_tensor, turned
from seminar_utils.pretraining.supervised import TrainConfig, count_right, fit
from seminar_utils.recipes.mask_table import Condition, all_methods, answers, images_of, measure_condition, numbers
from seminar_utils.recipes.masks import mask_set
from seminar_utils.runtime import SeminarError


def network(**options):
    torch.manual_seed(0)
    model = create_model("fcn_small", **options)
    randomise_(model, seed=0)
    return model.eval()


def test_one_convolution_over_all_stages_is_the_sum_of_the_papers_scores():
    model, x = network(num_classes=3), torch.rand(2, 1, 64, 64)
    parts = model.classifier.weight.split([16, 32, 64], dim=1)  # each (3, width, 1, 1)
    maps = list(model.maps(x))
    assert [m.shape[1:] for m in maps] == [(16, 64, 64), (32, 32, 32), (64, 16, 16)]
    scores = [F.interpolate(F.conv2d(m, part), (64, 64), mode="bilinear") for m, part in zip(maps, parts)]
    expected = sum(scores) + model.classifier.bias[:, None, None]
    torch.testing.assert_close(model(x), expected, atol=1e-4 * float(expected.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("norm", ["bn", "gn", "ln"])
@pytest.mark.parametrize("size", [33, 64])
def test_every_pixel_gets_an_answer(norm, size):
    assert network(norm=norm, in_chans=3)(torch.rand(2, 3, size, size)).shape == (2, 1, size, size)


def test_wrong_images_are_told():
    with pytest.raises(SeminarError, match="B, 1, H, W"):
        network()(torch.rand(2, 3, 64, 64))


def test_dice_is_that_of_the_evaluation():
    generator = Generator().manual_seed(0)
    logits = torch.randn(5, 1, 9, 9, generator=generator)
    masks = (torch.rand(5, 1, 9, 9, generator=generator) < 0.3).float()
    logits[4], masks[4] = -1, 0  # both empty
    found = dice_of_each(logits, masks)
    for i in range(4):
        assert found[i].item() == pytest.approx(dice(masks[i, 0].numpy(), (logits[i, 0] > 0).numpy()))
    assert torch.isnan(found[4])


def test_a_mask_keeps_the_pixels_that_are_half_inside():
    inside = np.zeros((1, 4, 4), bool)
    inside[0, :2, 0] = True  # half of the first of four cells
    inside[0, 3, 3] = True  # a quarter of the last
    assert mask_tensor(inside, 2).tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_right_pixels_are_counted_image_by_image():
    logits, masks = torch.tensor([[[[1.0, -1.0]]], [[[2.0, 3.0]]]]), torch.tensor([[[[1.0, 1.0]]], [[[1.0, 1.0]]]])
    assert count_right(logits, masks) == 1.5
    assert count_right(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1])) == 1


def test_image_and_mask_turn_alike():
    x = torch.rand(3, 1, 8, 8)
    seen = set()
    for seed in range(40):
        image, mask = turned(x, x.clone(), Generator().manual_seed(seed))
        assert torch.equal(image, mask)
        seen.add(tuple(image[0].flatten().tolist()))
    assert len(seen) == 8


def lesions(split, n=64):
    return mask_set(load("phantoms", split, n=n, scanner="AB"))


def test_the_loader_is_fixed_by_its_seed():
    images = lesions("train", 20)
    passes = [list(images.loader(8, shuffle=True, seed=s, size=64)) for s in (1, 1, 2)]
    assert [len(x) for x, _ in passes[0]] == [8, 8, 4] and len(images.loader(8)) == 3
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(passes[0], passes[1]))
    assert not torch.equal(passes[0][0][0], passes[2][0][0])
    x, masks = next(iter(images.loader(8, size=64)))
    assert torch.equal(masks[:, 0] > 0, torch.as_tensor(images.images.masks[:8] == 2)) and x.shape == masks.shape


def test_it_learns_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    config = TrainConfig(epochs=3, lr=4e-3, batch_size=16, label_smoothing=0.0)
    options = {"size": 32, "objective": mask_loss, "judge": judge_masks, "progress": False}

    def run(config=config, **more):
        torch.manual_seed(0)
        model = create_model("fcn_small")
        return model, fit(model, lesions("train"), lesions("val", 32), config, **options, **more)

    model, history = run()
    assert history[-1]["loss"] < history[0]["loss"] and list(history[0])[-1] == "val_dice"
    real, calls = supervised.train_epoch, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "train_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=tmp_path / "run.pt")
    again, told = run(checkpoint=tmp_path / "run.pt")
    assert told == history
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_images_without_masks_are_refused():
    bare = replace(load("phantoms", "test", n=4), masks=None)
    with pytest.raises(SeminarError, match="needs masks"):
        MaskSet(bare, lambda masks: masks > 0)


def test_a_recipe_runs_from_images_to_card(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    card = recipes.pretrain("fcn_small-phantoms-s7", folder=tmp_path, progress=False)
    assert card["outputs"] == [[1, 64, 64]] and card["metrics"].keys() == card["intervals"].keys() == {"dice"}
    assert load_checkpoint("fcn_small-phantoms-s7", folder=tmp_path)(torch.rand(1, 1, 64, 64)).shape == (
        1,
        1,
        64,
        64,
    )
    assert json.loads((tmp_path / "results.jsonl").read_text())["id"] == card["result_id"]


# -- the table --


def test_answers_come_back_in_the_order_of_the_images():
    x = torch.rand(10, 1, 4, 4)
    sizes = []
    found = answers(lambda part: (sizes.append(len(part)), part)[1], x, 4, seed=3)
    assert torch.equal(found, x) and sizes == [4, 4, 2]


def test_light_and_dark_are_exchanged():
    plain = images_of(Condition("phantoms", 0.7), limit=3)
    other = images_of(Condition("phantoms", 0.7, "exchanged"), limit=3)
    assert torch.equal(other[0], 1 - plain[0]) and torch.equal(other[1], plain[1])
    noisy = images_of(Condition("phantoms", 0.7, "poisson_noise"), limit=3)[0]
    assert noisy.shape == plain[0].shape and not torch.equal(noisy, plain[0])


def test_the_numbers_of_a_perfect_and_of_an_empty_answer():
    masks = torch.zeros(6, 1, 8, 8)
    masks[:, :, :4, :4] = 1
    source = np.full(6, 0.5)
    metrics, intervals = numbers(100 * (masks - 0.5), masks, source)
    assert metrics["dice"] == 1 and metrics["over_source"] == 0.5 and metrics["harm"] == 0
    assert metrics["ece"] == pytest.approx(0) and metrics["inside"] == metrics["truly_inside"] == 0.25
    assert intervals["dice"] == [1, 1]
    worse, _ = numbers(torch.full_like(masks, -9.0), masks, source)
    assert worse["dice"] == 0 and worse["harm"] == 1 and worse["over_source"] == -0.5


def test_what_is_measured_is_not_measured_again(tmp_path):
    store, model = ResultsStore(tmp_path / "r.jsonl"), network()
    builds = {name: build for name, build in all_methods([]).items() if name in ("source", "BN")}
    condition = Condition("phantoms", 0.7, batch_size=4)
    first = measure_condition(condition, {"source": builds["source"]}, model, 0, store, limit=6)
    assert first[0]["metrics"]["over_source"] == 0 and first[0]["metrics"]["harm"] == 0
    assert first[0]["params"]["images"] == 6 and first[0]["params"]["network"] == "fcn_small-phantoms"
    both = measure_condition(condition, builds, model, 0, store, limit=6)
    assert [row["params"]["method"] for row in both] == ["BN"]
    assert measure_condition(condition, builds, model, 0, store, limit=6) == []
    assert len(measure_condition(condition._replace(batch_size=1), builds, model, 0, store, limit=6)) == 2


def test_every_method_of_the_table_answers_at_every_pixel():
    x = torch.rand(4, 1, 16, 16)
    builds = all_methods([x])
    assert {"source", "BN", "Tent", "EATA", "SAR", "SHOT", "with reset"} <= builds.keys() and "LAME" not in builds
    for build in builds.values():
        logits = build(network())(x)
        assert logits.shape == (4, 1, 16, 16) and torch.isfinite(logits).all()


def test_tent_moves_norms_only_and_lowers_the_entropy_of_the_pixels():
    model, x = network(), torch.rand(8, 1, 32, 32)
    method = Tent(model, lr=1e-2)
    said = [method(x) for _ in range(6)]

    def entropy(z):
        return F.binary_cross_entropy_with_logits(z, z.sigmoid()).item()

    assert entropy(said[-1]) < entropy(said[0])
    assert torch.equal(said[0], BatchNormAdapt(model)(x))  # from before the first update
    moved = {
        name
        for name, value in method.model.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    layers = {name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert moved and {name.rsplit(".", 1)[0] for name in moved} <= layers
