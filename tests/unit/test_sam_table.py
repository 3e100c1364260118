"""Lesson 07's table: objects out of masks, careless boxes, rows that pair the model with the filled box."""

import numpy as np
import pytest
import torch

from seminar_utils import create_model, load
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.recipes.sam_table import (
    EACH,
    Objects,
    careless,
    first,
    in_each,
    measure_objects,
    phantom_objects,
    pieces,
    real_objects,
)


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    size = {"dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "prompt_dim": 16}
    return SamPredictor(create_model("sam_tiny", img_size=32, **size))


def test_pieces_are_the_largest_and_small_ones_are_left_out():
    mask = np.zeros((40, 80), bool)
    mask[2:5, 2:5] = True  # 9 pixels
    for i in range(EACH + 2):
        mask[10 : 16 + i, 10 * i : 10 * i + 7] = True
    found = pieces(mask)
    sizes = found.sum(axis=(1, 2))
    assert len(found) == EACH and (np.diff(sizes) <= 0).all() and sizes[-1] > 42
    assert (found.sum(axis=0) <= 1).all()
    assert pieces(np.zeros((5, 7), bool)).shape == (0, 5, 7)


def test_an_image_keeps_only_the_objects_it_has():
    images = load("phantoms", "test", n=3)
    masks = {"lesion": (images.masks == 2).copy(), "organ": images.masks > 0}
    masks["lesion"][1] = False
    found = in_each("phantoms", images, masks)
    assert found.kinds == [["lesion", "organ"], ["organ"], ["lesion", "organ"]]
    assert np.array_equal(found.masks[1][0], masks["organ"][1])


def test_first_spreads_over_the_whole_set():
    images = load("phantoms", "test", n=9)
    assert np.array_equal(first(images, 3).images, images.images[[0, 4, 8]])
    assert len(first(images, 20)) == len(first(images, None)) == 9


def test_careless_boxes_are_near_inside_and_fixed_by_their_seeds():
    masks = load("phantoms", "test", n=20).masks == 2
    tight, off = careless(masks, 1, 2), careless(masks, 1, 3)
    assert torch.equal(tight, careless(masks, 1, 2)) and not torch.equal(tight, off)
    assert (off[:, :2] <= off[:, 2:]).all() and off.min() >= 0 and off.max() <= 63
    assert (tight - off).abs().mean() < 4


def test_rows_hold_model_box_and_paired_difference(predictor, tmp_path):
    objects, store = phantom_objects(4)[0], ResultsStore(tmp_path / "rows.jsonl")
    rows = measure_objects(predictor, objects, "sam.test", seeds=(0, 1), store=store, n_boot=20)
    assert [(row["params"]["prompt"], row["seed"]) for row in rows] == [
        ("tight box", 0),
        ("careless box", 0),
        ("careless box", 1),
        ("point", 0),
    ]
    for row in rows:
        m = row["metrics"]
        assert m["ahead"] == pytest.approx(m["dice"] - m["filled_box"])
        assert row["params"]["objects"] == row["params"]["images"] == 4
        low, high = row["intervals"]["filled_box"]
        assert low <= m["filled_box"] <= high
    assert rows[0]["metrics"]["filled_box"] > 0.6  # the box alone gives that much away


def test_too_few_images_give_no_row(predictor, tmp_path):
    none = Objects("nothing", np.zeros((2, 32, 32, 1), np.uint8), [np.zeros((0, 32, 32), bool)] * 2, [[], []])
    assert measure_objects(predictor, none, store=ResultsStore(tmp_path / "rows.jsonl")) == []


def test_real_sets_are_left_out_when_they_are_not_here(monkeypatch):
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    assert real_objects(1) == []
