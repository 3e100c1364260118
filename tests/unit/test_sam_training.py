"""SAM's losses, its simulated user, and the loop: what moves, what resumes, what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils import create_model, load
from seminar_utils.adaptation.lora import add_lora
from seminar_utils.models.boxes import boxes_from_masks
from seminar_utils.pretraining.sam import (
    MaskLoss,
    dice_loss,
    first_prompt,
    focal_loss,
    jitter_boxes,
    mask_iou,
    next_prompt,
    sample_points,
)
from seminar_utils.pretraining.sam_training import (
    SamConfig,
    fit_sam,
    make_objects,
    target_masks,
    train_what_moves,
    tune_decoder,
    vary,
)
from seminar_utils.runtime import SeminarError

SMALL = {"dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "prompt_dim": 16}


def tiny(seed=0):
    torch.manual_seed(seed)
    return create_model("sam_tiny", img_size=32, **SMALL)


@pytest.fixture(scope="module")
def phantoms():
    images = load("phantoms", "train", n=6, scanner="AB")
    return images.images[:, ::2, ::2], np.stack([images.masks == 2, images.masks > 0], axis=1)[:, :, ::2, ::2]


def some_masks(P=3, K=2, side=8):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(P, K, side, side, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(P, 1, side, side, generator=generator) > 0.6).double()


def test_focal_loss_is_torchvisions():
    from seminar_utils.torchvision_fix import import_torchvision

    import_torchvision()
    from torchvision.ops import sigmoid_focal_loss

    logits, target = some_masks()
    for alpha, gamma in ((0.25, 2.0), (0.7, 1.5)):
        theirs = sigmoid_focal_loss(logits, target.expand_as(logits), alpha, gamma).mean(dim=(-2, -1))
        torch.testing.assert_close(focal_loss(logits, target, alpha, gamma), theirs)


def test_dice_loss_by_hand():
    logits, target = some_masks()
    p, t = logits[1, 1].sigmoid(), target[1, 0]
    both = (p * t).sum()
    plain = 1 - (2 * both + 1) / (p.sum() + t.sum() + 1)
    squared = 1 - 2 * both / ((p**2).sum() + t.sum())
    torch.testing.assert_close(dice_loss(logits, target)[1, 1], plain)
    torch.testing.assert_close(dice_loss(logits, target, squared=True, smooth=0)[1, 1], squared)
    sure = 40 * (2 * target - 1)
    assert dice_loss(sure, target).max() < 1e-6 and dice_loss(-sure, target).min() > 0.9


def test_iou_by_hand():
    logits = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])  # (1, 2, 2, 2)
    target = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    torch.testing.assert_close(mask_iou(logits, target), torch.tensor([[1 / 3, 0.0]]))


def test_only_the_best_of_three_masks_is_taught_and_every_guess():
    logits, target = some_masks(P=2, K=3)
    logits[0, 1] = 6 * (2 * target[0, 0] - 1)
    logits[1, 2] = 6 * (2 * target[1, 0] - 1)
    logits.requires_grad_(True)
    guessed = torch.full((2, 3), 0.4, requires_grad=True)
    loss, best = MaskLoss()(logits, guessed, target)
    loss.backward()
    taught = logits.grad.abs().sum(dim=(-2, -1)) > 0
    assert best.tolist() == [1, 2]
    assert taught.tolist() == [[False, True, False], [False, False, True]]
    assert (guessed.grad != 0).all()


def test_medsams_loss_is_dice_and_bce_unweighted():
    logits, target = some_masks(K=1)
    loss, _ = MaskLoss(focal=0, bce=1, iou=0, squared=True)(logits, torch.zeros(3, 1), target)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(loss, dice_loss(logits, target, squared=True).mean() + bce)


def test_jittered_boxes_are_boxes_of_the_right_spread():
    boxes = torch.tensor([[100.0, 200.0, 299.0, 249.0]]).repeat(4000, 1)
    moved = jitter_boxes(boxes, 1000, torch.Generator().manual_seed(0), share=0.1, most=1000)
    spread = (moved - boxes).std(dim=0)
    torch.testing.assert_close(spread, torch.tensor([20.0, 5.0, 20.0, 5.0]), rtol=0.1, atol=0)
    assert (jitter_boxes(boxes, 1000, torch.Generator().manual_seed(0)) - boxes).abs().max() <= 20
    edge = jitter_boxes(torch.tensor([[0.0, 0.0, 3.0, 31.0]]).repeat(500, 1), 32, torch.Generator(), share=1.0)
    assert edge.min() >= 0 and edge.max() <= 31 and (edge[:, 2:] >= edge[:, :2]).all()


def test_points_lie_in_their_region():
    region = torch.zeros(2, 6, 8)
    region[0, 1, 7] = 1
    region[1, 4:, 2] = 1
    points = sample_points(region, torch.Generator().manual_seed(0))
    assert points[0].tolist() == [7, 1] and points[1, 0] == 2 and points[1, 1] in (4, 5)
    with pytest.raises(SeminarError, match="region 1 is empty"):
        sample_points(torch.stack([region[0], torch.zeros(6, 8)]), torch.Generator())


def test_first_prompt_counts_in_the_encoders_pixels():
    target = torch.zeros(1, 1, 8, 8)
    target[0, 0, 2, 5] = 1
    generator = torch.Generator().manual_seed(0)
    point = first_prompt(target, 4.0, by_box=False, generator=generator)
    assert point["points"].tolist() == [[[21.5, 9.5]]] and point["labels"].tolist() == [[1.0]]  # the centres
    box = first_prompt(target, 1.0, by_box=True, generator=generator, jitter=0)
    assert torch.equal(box["boxes"], boxes_from_masks(target[:, 0]))


def test_next_point_says_what_was_wrong():
    target = torch.zeros(3, 1, 8, 8)
    target[:, 0, 2:5, 2:5] = 1
    logits = 4 * (2 * target - 1)
    logits[0, 0, 3, 3] = -4  # missed
    logits[1, 0, 7, 0] = 4  # ran over; the third is right
    first = {"points": torch.zeros(3, 1, 2), "labels": torch.ones(3, 1)}
    prompt = next_prompt(first, logits, target, 1.0, torch.Generator().manual_seed(0))
    assert prompt["points"].shape == (3, 2, 2) and prompt["labels"][:, 1].tolist() == [1, 0, 1]
    assert prompt["points"][:2, 1].tolist() == [[3, 3], [0, 7]]
    x, y = prompt["points"][2, 1].long().tolist()
    assert target[2, 0, y, x] == 1
    assert torch.equal(prompt["masks"], logits)


def test_targets_go_the_way_of_the_image():
    model = tiny()
    masks = torch.zeros(1, 1, 16, 32, dtype=torch.bool)
    masks[0, 0, 8:, 16:] = True
    target = target_masks(model.transform, masks, 32)[0, 0]
    assert target[8:16, 16:].all() and target.sum() == 8 * 16  # the lower half of the square is padding


def test_loss_falls_and_a_killed_run_goes_on_exactly(phantoms, tmp_path):
    config = SamConfig(epochs=6, batch_size=3, lr=3e-3, rounds=2)
    whole = tiny()
    history = fit_sam(whole, make_objects(whole, *phantoms), config, progress=False)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]

    class Killed(Exception):
        pass

    def kill(model):
        if not done:
            done.append(1)
            return {}
        raise Killed

    done, run = [], tmp_path / "run.pt"
    model = tiny()
    with pytest.raises(Killed):
        fit_sam(model, make_objects(model, *phantoms), config, evaluate=kill, checkpoint=run, progress=False)
    resumed = tiny(seed=5)
    resumed.prompt_encoder.load_state_dict(tiny().prompt_encoder.state_dict())
    again = fit_sam(resumed, make_objects(resumed, *phantoms), config, checkpoint=run, progress=False)
    assert [row["loss"] for row in again] == [row["loss"] for row in history]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(SeminarError, match="other settings|run with"):
        fit_sam(tiny(), make_objects(whole, *phantoms), SamConfig(epochs=7), checkpoint=run, progress=False)


def test_decoder_alone_moves_and_images_are_encoded_once(phantoms):
    model = tune_decoder(tiny())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    fit_sam(model, make_objects(model, *phantoms), SamConfig(epochs=2, batch_size=3, rounds=1), progress=False)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("mask_decoder.") for name in moved)
    assert len(calls) == 1


def test_lora_moves_its_corrections_only(phantoms):
    model = tiny()
    add_lora(model.image_encoder, ("qkv",), rank=2)
    for part in (model.prompt_encoder, model.mask_decoder):
        part.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_sam(model, make_objects(model, *phantoms), SamConfig(epochs=2, batch_size=3, rounds=1), progress=False)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("lora" in name for name in moved)


def test_frozen_batchnorm_keeps_its_statistics():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)).requires_grad_(False)
    net[2].requires_grad_(True)
    train_what_moves(net.train())
    assert [module.training for module in net] == [False, False, True]


def test_images_vary_within_their_range_each_by_its_own_draw():
    x = torch.full((4, 1, 16, 16), 0.5)
    assert vary(x, 0.0, torch.Generator()) is x
    varied = vary(x, 0.4, torch.Generator().manual_seed(0))
    again = vary(x, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(varied, again) and 0 <= varied.min() and varied.max() <= 1
    means, spreads = varied.mean(dim=(1, 2, 3)), varied.std(dim=(1, 2, 3))
    assert means.std() > 0.02 and 0 < spreads.min() and spreads.max() < 0.12 and spreads.std() > 0.005


def test_bad_input(phantoms):
    images, masks = phantoms
    model = tiny()
    with pytest.raises(SeminarError, match="same N, H and W"):
        make_objects(model, images, masks[:, 0])
    empty = masks.copy()
    empty[2, 1] = False
    with pytest.raises(SeminarError, match="object 1 of image 2"):
        make_objects(model, images, empty)
    with pytest.raises(SeminarError, match="nothing to train"):
        fit_sam(model.requires_grad_(False), make_objects(model, images, masks), SamConfig(), progress=False)
    with pytest.raises(SeminarError, match="rounds >= 1"):
        SamConfig(rounds=0)
    with pytest.raises(SeminarError, match=r"intensity in \[0, 1\]"):
        SamConfig(intensity=2)
