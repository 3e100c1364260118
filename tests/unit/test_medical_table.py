"""The long tables of lesson 08: who moves, which ten images, rows beside the filled box, and other pipelines."""

import numpy as np
import pytest
import torch

from seminar_utils.data import load
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.models import create_model
from seminar_utils.recipes.medical_table import (
    LOOSE,
    STRENGTH,
    largest_part,
    lesions,
    measure_lite,
    measure_pipelines,
    measure_tuning,
    pipelines,
    ten_images,
    tune,
    what_moves,
)
from seminar_utils.runtime import SeminarError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("sam_tiny").eval()


@pytest.fixture(scope="module")
def tasks():
    return {"A and B": lesions("test", 3, scanner="AB"), "C": lesions("test", 3, scanner="C", strength=STRENGTH)}


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "rows.jsonl")


def test_each_method_moves_its_part_only(model):
    moving = {
        method: {name for name, p in what_moves(model, method).named_parameters() if p.requires_grad}
        for method in ("decoder", "LoRA", "full")
    }
    assert all(name.startswith("mask_decoder.") for name in moving["decoder"])
    assert all(name.startswith("image_encoder.") and ".qkv.lora_" in name for name in moving["LoRA"])
    assert moving["full"] == {name for name, _ in model.named_parameters()}
    with pytest.raises(SeminarError, match="decoder, LoRA or full"):
        what_moves(model, "all")


def test_the_seed_decides_which_images_are_labelled():
    one, again, other = (ten_images("train", seed, 4) for seed in (0, 0, 1))
    assert np.array_equal(one.images, again.images) and not np.array_equal(one.images, other.images)
    assert set(one.domains) == {"C"}


def test_tuning_leaves_the_model_and_the_generator_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again = (tune(model, "LoRA", ten_images("train", 0, 2), 0, epochs=1) for _ in range(2))
    assert torch.rand(1) == expected
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters()))
    assert torch.equal(one.mask_decoder.mask_tokens.weight, model.mask_decoder.mask_tokens.weight)


def test_rows_of_the_tuning(model, tasks, store):
    about = {"checkpoint": "x"}
    rows = measure_tuning(model, tasks, seeds=(0,), methods=("decoder",), about=about, store=store, epochs=1)
    assert len(rows) == 2 * 3 + 2 * 2 and all(row["params"]["checkpoint"] == "x" for row in rows)
    found = {(r["params"]["method"], r["params"]["data"], r["params"]["prompt"]): r["metrics"] for r in rows}
    for data in tasks:
        base, start = found["filled box", data, "box"]["dice"], found["as trained", data, "box"]["dice"]
        tuned = found["decoder", data, "box"]
        assert tuned["gain"] == pytest.approx(tuned["dice"] - start)
        assert tuned["over_box"] == pytest.approx(tuned["dice"] - base)
    assert rows[-1]["params"]["epochs"] == 1 and "rank" not in rows[-1]["params"]


def test_rows_of_prompts_and_looseness(model, tasks, store):
    rows = measure_lite(model, {"A and B": tasks["A and B"]}, method="tiny", store=store)
    table = [row for row in rows if row["experiment"] == "medical.table"]
    loose = [row for row in rows if row["experiment"] == "medical.looseness"]
    assert {(row["params"]["method"], row["params"]["prompt"]) for row in table} == {
        ("tiny", "box"),
        ("tiny", "point"),
        ("filled box", "box"),
    }
    assert len(loose) == 2 * len(LOOSE)


def test_the_own_pipeline_comes_first(model, tasks, store):
    assert list(pipelines(model))[0] == "LiteMedSAM's" and len(pipelines(model)) == 3
    rows = measure_pipelines(model, {"A and B": tasks["A and B"]}, "tiny", store=store)
    assert [row["metrics"]["gain"] == 0 for row in rows][0] and len(rows) == 3
    assert {row["params"]["pipeline"] for row in rows} == {"SAM's", "MedSAM's", "LiteMedSAM's"}


def test_only_the_largest_part_is_kept():
    masks = np.zeros((2, 20, 20), np.uint8)
    masks[0, 1:4, 1:4], masks[0, 8:16, 8:16], masks[1, 0, 0] = 1, 1, 1
    kept, good = largest_part(masks)
    assert kept[0].sum() == 64 and good.tolist() == [True, False]


def test_lesions_are_one_object_each():
    found = lesions("test", 2, scanner="AB")
    expected = load("phantoms", "test", n=2, scanner="AB").masks == 2
    assert np.array_equal(found.masks, expected) and len(found.first(1).images) == 1
