"""Lesson 13's table: a label network without meta-training, answers back in image order, resuming, differences."""

import copy

import numpy as np
import pytest
import torch

from seminar_utils import create_model, load, load_checkpoint
from seminar_utils.adaptation import NeighborLabels, Source
from seminar_utils.evaluation.metrics import balanced_accuracy, harm_rate
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.streams import run_stream, stream
from seminar_utils.models.neighbor_labels import with_label_network
from seminar_utils.pretraining.neighbor_labels import MetaConfig
from seminar_utils.recipes.neighbor_table import (
    META,
    as_digits,
    condition,
    difference,
    from_digits,
    in_image_order,
    measure_family,
    name_classes,
)
from seminar_utils.runtime import SeminarError

SMALL = MetaConfig(epochs=1, steps=4, batch_size=8)
FEW = {name: META[name] for name in ("source", "BN", "neighbour labels")}


def network(seed=0):
    torch.manual_seed(seed)
    return create_model("resnet_small_neighbors", num_classes=6).eval()


@pytest.fixture(scope="module")
def train():
    return load("phantoms", "train", n=120, scanner="AB")


@pytest.fixture(scope="module")
def images():
    return load("phantoms", "test", n=24, scanner="C", strength=0.7)


def test_naming_classes_moves_phi_and_leaves_theta_and_the_generator_alone(train):
    model = network()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    name_classes(model, train, SMALL)
    assert torch.rand(1) == expected and not model.training
    again = name_classes(network(), train, SMALL).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("label_network.")
        assert torch.equal(value, again[name])


def test_naming_classes_teaches_phi_the_classes_of_a_trained_network(train):
    torch.manual_seed(0)
    model = with_label_network(load_checkpoint("resnet_small-phantoms-s0"))
    x, y = train.torch(size=32)

    def right(model):
        method = NeighborLabels(model, labels="mean")
        with torch.no_grad():
            logits, features = method.model(x, with_features=True)
        return (method.infer_labels(features, logits)[0].argmax(1) == y).float().mean().item()

    assert right(model) < 0.7
    assert right(name_classes(model, train, MetaConfig(epochs=1, steps=60, batch_size=32))) > 0.85


@pytest.mark.parametrize("order", ["iid", "class"])
def test_predictions_come_back_in_the_order_of_the_images(order):
    x, y = load("phantoms", "test", n=30).torch(size=32)
    model = load_checkpoint("resnet_small-phantoms-s0")  # an untrained one gives the same answer to everybody
    with torch.no_grad():
        expected = model(x).argmax(1).numpy()
    assert len(set(expected)) > 3
    result = run_stream(Source(model), stream(x, y, 7, order, 3))
    assert np.array_equal(in_image_order(result, y.numpy(), order, 3), expected)


def test_a_row_holds_its_answers_and_a_second_call_goes_on(images, tmp_path):
    store, built = ResultsStore(tmp_path / "rows.jsonl"), []

    def build(seed):
        built.append(seed)
        return network(seed)

    options = {"strength": 0.7, "store": store, "batch_sizes": (8,)}
    first = measure_family(FEW, build, images, seed=1, orders=("iid",), **options)
    assert len(first) == 3 and built == [1]
    second = measure_family(FEW, build, images, seed=1, **options)
    assert {row["params"]["order"] for row in second} == {"class"} and len(second) == 3
    assert measure_family(FEW, build, images, seed=1, **options) == [] and built == [1, 1]
    assert len(measure_family(FEW, build, images, seed=2, **options)) == 6
    source, *others = first
    assert source["metrics"]["harm"] == 0
    truth = from_digits(source["truth"])
    for row in first:
        answers = from_digits(row["answers"])
        assert row["metrics"]["balanced_accuracy"] == pytest.approx(balanced_accuracy(truth, answers))
        assert row["metrics"]["harm"] == harm_rate(truth, from_digits(source["answers"]), answers)


def test_a_difference_pairs_patients_and_seeds(images, tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    options = {"strength": 0.7, "store": store, "orders": ("iid",), "batch_sizes": (8,)}
    rows = [row for s in (0, 1) for row in measure_family(FEW, network, images, seed=s, **options)]
    score = {(r["params"]["method"], r["seed"]): r["metrics"]["balanced_accuracy"] for r in rows}
    found = difference(condition(rows, strength=0.7, order="iid"), "source", "BN", n_boot=50).interval
    assert found.mean == pytest.approx(np.mean([score["BN", s] - score["source", s] for s in (0, 1)]))
    assert found.low < found.mean < found.high
    with pytest.raises(SeminarError, match="the same two or more seeds"):
        difference([row for row in rows if row["seed"] == 0], "source", "BN")
    with pytest.raises(SeminarError, match="holds no row"):
        condition(rows, order="class")


def test_digits_and_back():
    assert as_digits(np.array([5, 0, 3])) == "503" and from_digits("503").tolist() == [5, 0, 3]
