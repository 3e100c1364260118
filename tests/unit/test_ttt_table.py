"""Lesson 12's table: rows of every method and condition, paired differences in image order, no part twice."""

import numpy as np
import pytest
import torch

from seminar_utils.adaptation import BatchNormAdapt, Source, Tent
from seminar_utils.evaluation.metrics import balanced_accuracy
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.streams import run_stream, stream
from seminar_utils.models import create_model
from seminar_utils.recipes.ttt_choice import measure_epochs, measure_rates
from seminar_utils.recipes.ttt_parts import in_order_of_images, patients, plus_plus, source_images
from seminar_utils.recipes.ttt_table import (
    COMPARED,
    DIFFERENCE,
    TABLE,
    measure_condition,
    measure_dial,
    methods,
    surviving,
)

KINDS = {"plain": "resnet_small", "rotation": "resnet_small_rotation", "simclr": "resnet_small_simclr"}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {net: {seed: create_model(name).eval() for seed in (0, 1)} for net, name in KINDS.items()}


@pytest.fixture(scope="module")
def make():
    x = torch.cat(source_images(48))
    return plus_plus(x.split(16))


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "rows.jsonl")


def test_a_condition_has_all_rows_and_differences_and_is_not_measured_twice(networks, make, store):
    those = patients(0.7, 24)
    rows = measure_condition(networks, methods(make), those, "class", 16, store, n_boot=20)
    table = [row for row in rows if row["experiment"] == TABLE]
    found = [row for row in rows if row["experiment"] == DIFFERENCE]
    count = sum(map(len, methods(make).values()))
    assert len(table) == 2 * count and len(found) == len(COMPARED)
    value = {(r["params"]["network"], r["params"]["method"], r["seed"]): r["metrics"] for r in table}
    for row in found:
        p = row["params"]
        sides = ((p["network"], p["after"]), (p["network_before"], p["before"]))
        after, before = (np.mean([value[*side, s]["balanced_accuracy"] for s in (0, 1)]) for side in sides)
        assert row["metrics"]["difference"] == pytest.approx(after - before) and row["seed"] == [0, 1]
        low, high = row["intervals"]["difference"]
        assert low <= row["metrics"]["difference"] <= high
    assert measure_condition(networks, methods(make), those, "class", 16, store) == []
    fewer = measure_condition(networks, methods(make, stored=False), those, "class", 24, store, n_boot=20)
    assert fewer and not any("stored" in row["params"].get("method", "") for row in fewer)


def test_answers_come_back_into_the_order_of_the_images(networks):
    those, model = patients(0.7, 20), networks["plain"][0]
    result = run_stream(Source(model), stream(those.x, those.labels, 8, "class", 3))
    with torch.no_grad():
        assert in_order_of_images(result, those, "class", 3).tolist() == model(those.x).argmax(1).tolist()


def test_ablations_switch_off_what_they_say(networks, make):
    built = {name: build(networks["simclr"][0]) for name, build in methods(make)["simclr"].items()}
    assert built["alignment only"].contrast == 0 and built["alignment only"].weights["features"] > 0
    assert built["contrast only"].contrast == 1 and set(built["contrast only"].weights.values()) == {0.0}
    stored = make(policy="source")(networks["simclr"][0])
    assert stored.policy == "source" and built["TTT++"].policy == "batch"
    moments = [one.source["features"].mean for one in (built["TTT++"], stored)]
    assert not torch.allclose(*moments)  # each policy has moments of its own


def test_a_network_that_diverged_counts_as_chance():
    said = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [torch.inf, 0.0]])
    assert surviving(lambda model: lambda x: said)(None)(said).tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]


def test_methods_of_a_network_start_with_its_own_controls(make):
    for compared in methods(make).values():
        assert list(compared.values())[:3] == [Source, BatchNormAdapt, Tent]
    assert {after for _, after, *_ in COMPARED} >= {"TTT", "TTT++", "contrast only", "alignment only"}


def test_the_dial_without_weight_and_contrast_has_no_use_for_a_queue(networks, make, store):
    rows = measure_dial(
        {0: networks["simclr"][0]}, make, patients(0.7, 16), store, (0.0, 1.0), (0, 8), batch_size=8
    )
    value = {(r["params"]["factor"], r["params"]["queue"]): r["metrics"]["ece"] for r in rows}
    assert value[0.0, 0] == value[0.0, 8] != value[1.0, 0] != value[1.0, 8]
    assert measure_dial({0: networks["simclr"][0]}, make, patients(0.7, 16), store, (0.0,), (8,)) == []


def test_epochs_are_scored_one_by_one_on_both_halves(networks, make, store):
    those, models = patients(0.7, 24), {0: networks["simclr"][0]}
    rows = measure_epochs(models, make, those, store, epochs=2)
    assert [row["params"]["epoch"] for row in rows] == [0, 1, 2]
    control = run_stream(BatchNormAdapt(models[0]), stream(those.x, those.labels, 64, "iid", 0))
    assert rows[0]["metrics"]["balanced_accuracy"] == pytest.approx(control.metrics()["balanced_accuracy"])
    by_hand = make()(models[0]).adapt_whole_set(those.x, 2).argmax(1)
    odd = np.arange(24) % 2 == 1
    assert rows[2]["metrics"]["second_half"] == balanced_accuracy(those.labels[odd], by_hand[odd])
    assert measure_epochs(models, make, those, store, epochs=2) == []


def test_every_rule_is_tested_on_those_that_an_oracle_saw_and_on_others(networks, make, store):
    tested, others, validation = patients(0.7, 12), patients(0.7, 24).part(12, 24), patients(1.0, 12, "val", "AB")
    candidates, models = ({"lr": 1e-4}, {"lr": 0.1}), {0: networks["simclr"][0]}
    rows = measure_rates(models, make, tested, others, validation, store, candidates)
    value = {(r["params"]["patients"], r["params"]["rule"]): r["metrics"]["balanced_accuracy"] for r in rows}
    assert len(value) == len(rows) == 8
    assert value["tested", "oracle"] >= value["tested", "default"]
    assert {r["params"]["method"] for r in rows if r["params"]["rule"] == "oracle"} == {"TTT++ (oracle)"}
    assert measure_rates(models, make, tested, others, validation, store, candidates) == []
