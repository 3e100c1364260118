"""Swin's parts: windows and back, the mask by its meaning, caches, sizes."""

import copy

import pytest
import torch

from seminar_utils.models import create_model
from seminar_utils.models.convert import from_microsoft, load_weights
from seminar_utils.models.parity import randomise_, relative_difference
from seminar_utils.models.swin import PatchMerging
from seminar_utils.models.windows import (
    MASKED,
    cached_shift_mask,
    relative_positions,
    shift_mask,
    window_partition,
    window_reverse,
)
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching.exercise_bank import find_exercise
from seminar_utils.teaching.judging import judge


def test_windows_and_back():
    x = torch.arange(2 * 6 * 9 * 5).reshape(2, 6, 9, 5)
    windows = window_partition(x, 3)
    assert windows.shape == (2 * 2 * 3, 9, 5)
    assert torch.equal(windows[1], x[0, 0:3, 3:6].reshape(9, 5))  # the second window of the first row
    assert torch.equal(windows[6 + 3], x[1, 3:6, 0:3].reshape(9, 5))
    assert torch.equal(window_reverse(windows, 3, 6, 9), x)


def test_relative_positions_say_where_the_other_stands():
    index = relative_positions(3)
    assert index.shape == (9, 9) and index.unique().tolist() == list(range(25))
    assert (index.diagonal() == 12).all()  # the middle row of the table: itself
    assert index[0, 1] == 11 and index[1, 0] == 13  # one column to the right, to the left
    assert index[0, 3] == 7  # one row below
    assert index[4, 8] == index[0, 4]  # only the offset counts


@pytest.mark.parametrize("shift", [(2, 2), (2, 0), (0, 2), (1, 3)])
def test_the_mask_separates_what_is_no_neighbour_in_the_image(shift):
    """By brute force: in a window of the rolled map, two tokens see each other if rolling kept their distance."""
    height, width, window = 8, 12, 4
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([rows, columns], dim=-1)[None]
    now = window_partition(place, window)
    before = window_partition(torch.roll(place, (-shift[0], -shift[1]), dims=(1, 2)), window)
    kept = ((before[:, :, None] - before[:, None]) == (now[:, :, None] - now[:, None])).all(-1)
    mask = shift_mask(height, width, window, shift)
    assert torch.equal(mask == 0, kept) and torch.equal(mask == MASKED, ~kept)
    assert MASKED == -100


def test_masks_are_made_once_and_are_good_for_training():
    cached_shift_mask.cache_clear()
    model = create_model("swin_tiny")
    with torch.inference_mode():
        model(torch.rand(1, 1, 32, 32))
    made = cached_shift_mask.cache_info().misses
    model(torch.rand(2, 1, 32, 32)).sum().backward()
    assert cached_shift_mask.cache_info().misses == made == 2  # maps of 16 and 8; on 4 there is no shift
    mask = cached_shift_mask(16, 16, 4, (2, 2), torch.device("cpu"), torch.float32)
    assert not mask.is_inference() and not any("mask" in name or "index" in name for name in model.state_dict())


def test_what_is_masked_is_not_seen_across_the_border():
    """Without the mask, the first block with a shift would mix the two ends of the image."""
    model = randomise_(create_model("swin_tiny"), seed=1).eval()
    block = model.layers[0].blocks[1]
    x = torch.randn(1, 16, 16, 32)
    changed = x.clone()
    changed[:, 0] = torch.randn(16, 32)  # the first row of the map; the last rows share its window after rolling
    difference = (block(changed)[0] - block(x)[0]).abs().amax(dim=(0, 2, 3))  # (16,) rows
    assert difference[0] > 1e-2 and difference[1] > 1e-3 and difference[2:].max() < 1e-6


def test_merge_order_is_down_then_right():
    merge = PatchMerging(1, eps=1e-5)
    merge.norm = torch.nn.Identity()
    with torch.no_grad():
        merge.reduction.weight.copy_(torch.tensor([[1.0, 10, 100, 1000], [0, 0, 0, 0]]))
    x = torch.tensor([[1.0, 3], [2, 4]]).reshape(1, 2, 2, 1)  # [0,0] 1, [1,0] 2, [0,1] 3, [1,1] 4
    assert merge(x)[0, 0, 0, 0] == 4321
    assert merge(torch.ones(1, 3, 5, 1)).shape == (1, 2, 3, 2)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (28, 28), (33, 47), (1, 1), (2, 90)])
def test_any_size_of_image(height, width):
    model = create_model("swin_tiny", num_classes=3).eval()
    x = torch.rand(2, 1, height, width)
    assert model(x).shape == (2, 3) and model.embed(x).shape == (2, model.num_features) == (2, 128)
    assert torch.equal(model(x), model.head(model.embed(x)))
    half = [-(-side // 2) for side in (height, width)]
    quarter = [-(-side // 2) for side in half]
    assert model.forward_features(x).shape[1:3] == tuple(-(-side // 2) for side in quarter)


def test_attention_of_every_block():
    model = create_model("swin_tiny").eval()
    x = torch.rand(2, 1, 32, 32)
    features, attentions = model.forward_features(x, return_attention=True)
    assert torch.equal(features, model.forward_features(x))
    assert [tuple(a.shape) for a in attentions] == [
        (2 * n, h, 16, 16) for n, h in [(16, 2), (16, 2), (4, 4), (4, 4), (1, 8), (1, 8)]
    ]
    assert all((a.sum(-1) - 1).abs().max() < 1e-5 for a in attentions)
    corner = attentions[1][15, 0]  # the last window of the shifted block: four regions, no one sees another
    assert (corner < 1e-30).sum() == 16 * 12


def test_microsoft_s_files_load_without_their_constants():
    model = randomise_(create_model("swin_tiny"), seed=2).eval()
    state = dict(model.state_dict())
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    with pytest.raises(SeminarError, match="from_microsoft"):
        load_weights(create_model("swin_tiny"), state)
    other = load_weights(create_model("swin_tiny"), from_microsoft(state)).eval()
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(model(x), other(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


def test_drop_path_rises_with_depth_and_only_in_training():
    model = create_model("swin_tiny", drop_path=0.5)
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    x = torch.rand(4, 1, 32, 32)
    assert relative_difference(model.eval()(x), model.eval()(x)) == 0
    assert relative_difference(model.train()(x), model.train()(x)) > 0


def test_a_wrong_mask_is_shown_where_it_differs():
    """Window 0 agrees, so the counterexample names window 1 and prints all of its pairs."""
    task = find_exercise("swin.shift_mask")
    lines = dict(
        judge(task, lambda height, width, window, shift: 0 * shift_mask(height, width, window, shift)).lines
    )
    assert lines["got (window 1)"].count("0.") == 16 and "-100." in lines["expected (window 1)"]
    for answer, problem in (
        (lambda *a: shift_mask(*a).double(), "got float64"),
        (lambda *a: shift_mask(*a)[0], "of shape"),
    ):
        assert problem in dict(judge(task, answer).lines)["problem"]
