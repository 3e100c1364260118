"""Fine-tuning for lesson 06's table: fixed steps, shared labelled images, rows that `probe_table` reads."""

import pytest
import torch

from seminar_utils.data import load
from seminar_utils.evaluation.probes import probe_table
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.models.mae import encoder_of
from seminar_utils.recipes.mae import hidden_errors
from seminar_utils.recipes.mae_table import fine_tune, measure_fine_tuning, starting_points, untrained


@pytest.fixture(scope="module")
def sets():
    return {split: load("phantoms", split, n=40, task="tone") for split in ("train", "test")}


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone(sets):
    x, labels = sets["train"].torch(size=32)
    start, _ = starting_points(untrained(0), 2)["MAE"]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (fine_tune(start(1), x, labels, steps=3, seed=seed, batch_size=8) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters())]
    assert all(same) and not one.training
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_an_untrained_network_follows_its_seed_only():
    torch.manual_seed(1)
    first = untrained(3).decoder_pred.weight
    torch.manual_seed(2)
    assert torch.equal(first, untrained(3).decoder_pred.weight)
    assert not torch.equal(first, untrained(4).decoder_pred.weight)


def test_both_starts_see_the_same_labelled_images(sets, tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    starts = starting_points(untrained(9), 2)
    rows = measure_fine_tuning("x", starts, sets, size=32, steps={0.5: 2, 1.0: 2}, seeds=(0, 1), store=store)
    assert len(rows) == 8 and {row["params"]["labelled"] for row in rows} == {20, 40}
    table = probe_table(rows)
    assert {key[0] for key in table} == {"random init", "MAE"} and ("MAE", "fine-tune", 0.5) in table
    again = measure_fine_tuning("x", starts, sets, size=32, steps={0.5: 2}, seeds=(0,), store=store)
    assert [row["metrics"] for row in again] == [row["metrics"] for row in rows[:2]]


def test_a_network_from_scratch_learns_dark_from_bright():
    labels = torch.tensor([0, 1] * 8)
    x = torch.rand(16, 1, 32, 32) * 0.3 + 0.6 * labels[:, None, None, None]
    net = fine_tune(encoder_of(untrained(0), 2), x, labels, steps=30, batch_size=8)
    with torch.no_grad():
        assert (net(x).argmax(1) == labels).all()


def test_one_grey_costs_nearly_one(sets, monkeypatch):
    model = untrained(0)
    monkeypatch.setattr(model, "decode", lambda latent, ids: torch.zeros(len(latent), 64, 16))
    errors = hidden_errors(model, sets["test"])
    assert errors.shape == (40,) and errors.max() <= 15 / 16 + 1e-5 and errors.mean() > 0.8
