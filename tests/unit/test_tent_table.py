"""Lesson 11's long table: several passes, resumed rows, label shift, networks that are not here."""

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils import load
from seminar_utils.adaptation import Source
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.recipes import tent_table
from seminar_utils.recipes.tent_table import (
    Stream,
    label_shift_row,
    methods,
    methods_without_bn,
    rows_of_stream,
    run,
)


def small_network():
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(16, 6)).eval()


class Seen:
    """A method that answers class 0 and remembers what it was shown."""

    def __init__(self, model):
        self.batches = []
        Seen.last = self

    def __call__(self, x):
        self.batches.append(x)
        return nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 6).float()


def test_of_several_passes_the_last_is_scored_in_the_order_of_the_source():
    x, labels = load("phantoms", "test", n=12).torch(size=32)
    result = run(Seen, nn.Identity(), x, labels, Stream(batch_size=6, passes=3), seed=4)
    assert len(Seen.last.batches) == 6 and len(result.labels) == 12
    once = run(Source, small_network(), x, labels, Stream(batch_size=6), seed=4)
    assert np.array_equal(result.labels, once.labels)
    assert not torch.equal(Seen.last.batches[0], Seen.last.batches[4])


def test_rows_hold_harm_and_the_paired_gain_and_are_measured_once(tmp_path):
    store, how = ResultsStore(tmp_path / "rows.jsonl"), Stream(batch_size=8, images=24)
    builds = {"source": Source, "zero": Seen}
    arguments = ("tent.test", {"network": "small", "stream": "mixed"}, builds, small_network(), how, 0, store)
    rows = rows_of_stream(*arguments, over_source=True)
    assert [row["params"]["method"] for row in rows] == ["source", "zero"]
    source, zero = (row["metrics"] for row in rows)
    assert source["harm"] == source["over_source"] == 0
    assert zero["over_source"] == pytest.approx(zero["balanced_accuracy"] - source["balanced_accuracy"])
    assert rows_of_stream(*arguments, over_source=True) == [] and len(store.rows()) == 2
    other = (*arguments[:4], how._replace(rate=20.0), 0, store)
    assert len(rows_of_stream(*other)) == 2  # another condition is another row


def test_a_stream_may_name_its_methods(tmp_path):
    store, how = ResultsStore(tmp_path / "rows.jsonl"), Stream(images=12, only=("source",))
    rows = rows_of_stream("tent.test", {}, {"source": Source, "zero": Seen}, small_network(), how, 0, store)
    assert [row["params"]["method"] for row in rows] == ["source"] and "only" not in rows[0]["params"]


def test_every_method_runs_and_a_rate_reaches_it():
    x = torch.rand(8, 1, 32, 32)
    for name, build in methods([x], rate=20).items():
        method = build(small_network())
        assert method(x).shape == (8, 6), name
        if hasattr(method, "lr"):
            assert method.lr == pytest.approx(0.02 if name == "Tent" else 0.1)
    layered = nn.Sequential(nn.Flatten(), nn.LayerNorm(1024), nn.Linear(1024, 6))
    assert all(build(layered)(x).shape == (8, 6) for build in methods_without_bn([x]).values())


def test_label_shift_counts_the_common_and_the_rare_apart():
    everyone = load("phantoms", "test", n=400)
    about, metrics = label_shift_row(everyone, 0, 0.5, "zero", Seen, nn.Identity(), seed=0, images=40)
    assert metrics == {
        "accuracy": 0.5,
        "balanced_accuracy": pytest.approx(1 / 6),
        "recall_common": 1.0,
        "recall_rare": 0.0,
        "said_common": 1.0,
    }
    assert about == {"method": "zero", "share": 0.5, "common": everyone.class_names[0], "images": 40}


def test_a_network_that_is_not_here_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tent_table, "WITHOUT_BN", {"resnet_small-nowhere-s0": ("GroupNorm", {})})
    tent_table.measure_without_bn(ResultsStore(tmp_path / "rows.jsonl"))
    assert "not here, left out" in capsys.readouterr().out
