import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.adaptation import BatchNormAdapt, Source
from seminar_utils.evaluation.intervals import bootstrap_interval
from seminar_utils.evaluation.measure import gain, image_intervals, live_or_stored, measure, stored, summarise
from seminar_utils.evaluation.metrics import accuracy, balanced_accuracy
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.streams import StreamResult
from seminar_utils.runtime import SeminarError


def model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.fixture
def runs(tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
    models = {seed: model(seed) for seed in range(3)}
    rows = measure(
        "try", {"source": Source, "bn": BatchNormAdapt}, models, x, y, params={"data": "d"}, store=store
    )
    return store, rows, (models, x, y)


def test_one_row_for_each_method_and_seed_is_in_the_store(runs):
    store, rows, _ = runs
    assert store.rows(experiment="try") == rows and len(rows) == 6
    assert rows[0]["params"] == {"method": "source", "batch_size": 64, "order": "iid", "images": 40, "data": "d"}
    assert all(row["metrics"]["harm"] == 0 for row in rows if row["params"]["method"] == "source")
    low, high = rows[0]["intervals"]["balanced_accuracy"]
    assert low <= rows[0]["metrics"]["balanced_accuracy"] <= high


def test_what_a_run_said_can_be_kept(runs):
    _, rows, (models, x, y) = runs
    said = {}
    again = measure("try", {"source": Source, "bn": BatchNormAdapt}, models, x, y, store=runs[0], results=said)
    assert set(said) == {(method, seed) for method in ("source", "bn") for seed in range(3)}
    for row in again:
        result = said[row["params"]["method"], row["seed"]]
        assert result.metrics()["accuracy"] == row["metrics"]["accuracy"]


def test_summaries_pair_by_seed(runs):
    _, rows, _ = runs
    table, difference = summarise(rows), gain(rows, over="source", of="bn")
    assert difference.mean == pytest.approx(table["bn"].mean - table["source"].mean)
    assert gain(rows, over="bn", of="bn").mean == 0


def test_rows_of_different_conditions_are_not_averaged(runs):
    store, rows, (models, x, y) = runs
    more = measure("try", {"source": Source}, models, x, y, batch_size=4, store=store)
    with pytest.raises(SeminarError, match="one condition"):
        summarise(rows + more)


def test_live_or_stored_says_which(runs, capsys, monkeypatch):
    store, rows, _ = runs
    assert live_or_stored("try", True, lambda: rows, store) == rows
    assert "live" in capsys.readouterr().out
    assert live_or_stored("try", False, list, store) == rows
    assert "results store" in capsys.readouterr().out
    with pytest.raises(SeminarError, match="no run"):
        live_or_stored("other", False, list, store)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_intervals_are_those_of_the_metrics_one_by_one(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes - 1, 60)  # the last class never comes
    result = StreamResult(rng.normal(size=(60, classes)), labels, np.zeros(60, int))
    found = image_intervals(result, 40)
    for metric in (accuracy, balanced_accuracy):
        one = bootstrap_interval(labels, result.predictions, statistic=metric, n_boot=40)
        assert found[metric.__name__] == [one.low, one.high]


def test_stored_rows_are_told_and_leave_smoke_runs_out(runs, capsys, monkeypatch):
    store, rows, _ = runs
    found = stored("try", store)
    said = capsys.readouterr().out
    assert found[: len(rows)] == rows and f"{len(found)} rows of try" in said and rows[0]["commit"] in said
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    store.append("try", {"method": "x"}, {"accuracy": 0.0}, {}, seed=0)
    assert stored("try", store) == found
    with pytest.raises(SeminarError, match="no run of 'other'"):
        stored("other", store)
