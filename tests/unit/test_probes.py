"""Probes: kNN by hand, C from validation only, shares of the labels, rows and intervals."""

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.data import load
from seminar_utils.evaluation import probes
from seminar_utils.evaluation.measure import summarise
from seminar_utils.evaluation.probes import (
    RawPixels,
    features,
    fit_linear,
    knn_probabilities,
    label_fraction,
    measure_probes,
    probe_table,
    random_encoders,
)
from seminar_utils.evaluation.results import ResultsStore

RNG = np.random.default_rng(0)


def blobs(count, spread=0.3, classes=3, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    return (centres[labels] + spread * rng.normal(size=(count, dim))).astype(np.float32), labels


# --- features --------------------------------------------------------------------------------------------


def test_features_are_in_eval_mode_in_order_and_leave_the_model_as_it_was():
    images = load("phantoms", "val", n=24)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 5), nn.Dropout(0.5)).train()
    found = features(model, images, size=32, batch_size=7)
    x, _ = images.torch(size=32)
    assert np.allclose(found, model[1](x.flatten(1)).detach().numpy(), atol=1e-5) and model.training
    vit = random_encoders("vit_tiny", [0])[0]
    assert features(vit, images, size=32).shape == (24, 96)  # what the head reads, not the logits
    doubled = features(RawPixels(), images, size=8, transform=lambda x: 2 * x)
    assert np.allclose(doubled, 2 * features(RawPixels(), images, size=8)) and doubled.shape == (24, 64)


def test_random_encoders_are_a_function_of_the_seed():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    models = random_encoders("vit_tiny", (0, 1), num_classes=0)
    assert torch.equal(torch.rand(1), before)  # the caller's generator is left alone
    again = random_encoders("vit_tiny", (1,), num_classes=0)
    assert torch.equal(models[1].pos_embed, again[1].pos_embed)
    assert not torch.equal(models[0].pos_embed, models[1].pos_embed)


# --- shares of the labels --------------------------------------------------------------------------------


def test_fractions_are_stratified_nested_and_seeded():
    labels = np.repeat([0, 1, 2], [900, 90, 3])
    tenth, all_of_them = label_fraction(labels, 0.1, 0), label_fraction(labels, 1.0, 0)
    hundredth = label_fraction(labels, 0.01, 0)
    assert np.bincount(labels[tenth]).tolist() == [90, 9, 1]
    assert np.bincount(labels[hundredth]).tolist() == [9, 1, 1]  # at least one of each class
    assert np.array_equal(all_of_them, np.arange(993)) and set(hundredth) <= set(tenth)
    assert np.array_equal(tenth, label_fraction(labels, 0.1, 0))
    assert not np.array_equal(tenth, label_fraction(labels, 0.1, 1))


# --- kNN -------------------------------------------------------------------------------------------------


def test_knn_by_hand():
    train, labels = blobs(40)
    test, _ = blobs(9, spread=1.0, seed=1)
    got = knn_probabilities(train, labels, test, 3, k=5, temperature=0.2, chunk=4)
    expected = np.zeros((9, 3))
    for i, query in enumerate(test):
        cosines = train @ query / np.linalg.norm(train, axis=1) / np.linalg.norm(query)
        for j in np.argsort(-cosines)[:5]:
            expected[i, labels[j]] += np.exp(cosines[j] / 0.2)
    np.testing.assert_allclose(got, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_knn_finds_classes_and_ignores_length():
    train, labels = blobs(300)
    test, truth = blobs(60, seed=1)
    probs = knn_probabilities(train, labels, test, 3)
    assert (probs.argmax(axis=1) == truth).mean() > 0.95
    lengths = RNG.uniform(0.1, 10, size=(60, 1)).astype(np.float32)
    np.testing.assert_allclose(probs, knn_probabilities(train, labels, lengths * test, 3), atol=1e-4)
    few = knn_probabilities(train[:4], labels[:4], test, 3)  # fewer than k: all vote
    assert few.shape == (60, 3) and np.allclose(few.sum(axis=1), 1)


# --- the linear probe ------------------------------------------------------------------------------------


def test_a_linear_probe_needs_no_unit_scale():
    train, labels = blobs(120)
    val, val_labels = blobs(60, seed=1)
    test, truth = blobs(60, seed=2)
    plain = fit_linear(train, labels, val, val_labels, 3).probabilities(test)
    scale = np.logspace(-3, 3, 8, dtype=np.float32)
    other = fit_linear(scale * train + 7, labels, scale * val + 7, val_labels, 3).probabilities(scale * test + 7)
    assert (plain.argmax(axis=1) == truth).mean() > 0.95
    np.testing.assert_allclose(other, plain, atol=0.02)


def test_c_is_chosen_on_validation_only():
    rng = np.random.default_rng(0)
    train, labels = rng.normal(size=(60, 40)).astype(np.float32), np.arange(60) % 2
    train[:, 0] += 2 * labels
    honest = rng.normal(size=(400, 40)).astype(np.float32)
    honest[:, 0] += 2 * (np.arange(400) % 2)
    strong = fit_linear(train, labels, honest, np.arange(400) % 2, 2, strengths=(1e-3, 1e3))
    assert strong.C == 1e-3  # noise dimensions: the strict probe generalises
    own = fit_linear(train, labels, train, labels, 2, strengths=(1e-3, 1e3))
    assert own.C == 1e3  # judged on what it learnt, the loose one looks better


def test_a_class_that_nobody_labelled_gets_no_probability():
    train, labels = blobs(40, classes=2)
    probe = fit_linear(train, labels, train, labels, num_classes=4)
    probs = probe.probabilities(train[:5])
    assert probs.shape == (5, 4) and np.allclose(probs.sum(axis=1), 1) and (probs[:, 2:] == 0).all()


# --- rows and intervals ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets():
    return {split: load("phantoms", split, n=n, task="tone") for split, n in COUNTS.items()}


COUNTS = {"train": 200, "val": 60, "test": 60}


def test_rows_table_and_baselines(sets, tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    encoders = {"raw pixels": RawPixels(), "random": random_encoders("vit_tiny", (0, 1, 2), num_classes=0)}
    rows = measure_probes("probe", encoders, sets, size=32, params={"data": "phantoms"}, store=store)
    assert store.rows(experiment="probe") == rows and len(rows) == 2 * 2 * 3 * 3
    assert {row["params"]["fraction"] for row in rows} == {0.01, 0.1, 1.0}
    first = rows[0]
    assert first["params"]["labelled"] == 2 and first["params"]["data"] == "phantoms"
    assert first["params"]["images"] == 60 and first["seconds"] >= 0
    assert all("C" in row["metrics"] for row in rows if row["params"]["probe"] == "linear")
    table = probe_table(rows)
    assert len(table) == 12 and all(0 <= t.low <= t.mean <= t.high <= 1 for t in table.values())
    one = [r for r in rows if r["params"]["probe"] == "linear" and r["params"]["fraction"] == 0.1]
    assert summarise(one)["random"].mean == table["random", "linear", 0.1].mean


def test_seeds_that_change_nothing_do_not_make_an_interval_of_no_width(sets, tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    rows = measure_probes("p", {"raw": RawPixels()}, sets, fractions=(0.1, 1.0), size=8, store=store)
    knn = [r for r in rows if r["params"]["probe"] == "knn" and r["params"]["fraction"] == 1.0]
    assert len({r["metrics"]["balanced_accuracy"] for r in knn}) == 1
    interval = probe_table(rows)["raw", "knn", 1.0]
    assert [interval.low, interval.high] == knn[0]["intervals"]["balanced_accuracy"]
    assert interval.high - interval.low > 0.02


def test_one_encoder_is_read_once(sets, tmp_path, monkeypatch):
    real, calls = probes.features, []
    monkeypatch.setattr(probes, "features", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    store = ResultsStore(tmp_path / "rows.jsonl")
    measure_probes("p", {"raw": RawPixels()}, sets, probes=("knn",), size=8, store=store)
    assert len(calls) == 3


def test_the_transform_is_not_for_raw_pixels(sets, tmp_path):
    def refuse(x):
        raise AssertionError

    store = ResultsStore(tmp_path / "rows.jsonl")
    options = {"fractions": (1.0,), "probes": ("knn",), "size": 8, "store": store}
    measure_probes("p", {"raw": RawPixels()}, sets, transform=refuse, **options)
    with pytest.raises(AssertionError):
        measure_probes("p", {"flat": nn.Flatten()}, sets, transform=refuse, **options)
