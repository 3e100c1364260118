"""One cell: its numbers are those of `measure`, and do not depend on what the process did before."""

import dataclasses

import numpy as np
import pytest
import torch

from seminar_utils.adaptation import BatchNormAdapt, Source, Tent, create_method
from seminar_utils.adaptation.eata import EATA
from seminar_utils.adaptation.registry import needs_source
from seminar_utils.adaptation.ttt_plus_plus import TTTPlusPlus
from seminar_utils.checkpoints import load_checkpoint, save_checkpoint
from seminar_utils.checkpoints.course import checkpoint_card
from seminar_utils.data import load
from seminar_utils.evaluation import bench_run
from seminar_utils.evaluation.bench_run import run_cell, with_resets
from seminar_utils.evaluation.bench_spec import parse_spec
from seminar_utils.evaluation.measure import measure
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.shifts import apply_shift
from seminar_utils.models import create_model
from seminar_utils.pretraining.simclr import TwoViews
from seminar_utils.runtime import SeminarError

GRID = {
    "methods": ["source", "bn", "tent"],
    "models": ["resnet_small-phantoms"],
    "data": [{"name": "phantoms", "scanner": "C"}],
    "shifts": ["blur"],
    "severities": [3],
    "batch_sizes": [16],
    "seeds": [0, 1],
}


def cells(top=None, **grid):
    spec = parse_spec({"name": "try", "images": 40, "resamples": 20, **(top or {}), "grid": [{**GRID, **grid}]})
    return list(spec.cells), spec.setup


def forget():
    for kept in (
        bench_run._source,
        bench_run._model,
        bench_run._image_set,
        bench_run._tensors,
        bench_run._shifted,
    ):
        kept.cache_clear()


def numbers(outcome):
    assert "error" not in outcome, outcome
    return {key: value for key, value in outcome["metrics"].items() if key != "ms_per_image"}


@pytest.fixture
def one_thread():
    """As in every cell: with two, the sums run in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_numbers_are_those_of_measure(tmp_path, one_thread):
    x, y = load("phantoms", "test", n=40, scanner="C").torch(32)
    expected = {}
    for seed in (0, 1):
        shifted = apply_shift(x, "blur", 3, seed)
        models = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}")}
        methods = {"source": Source, "bn": BatchNormAdapt, "tent": Tent}
        store = ResultsStore(tmp_path / "rows.jsonl")
        rows = measure("e", methods, models, shifted, y, batch_size=16, store=store)
        expected |= {(row["params"]["method"], seed): row["metrics"] for row in rows}
    todo, setup = cells()
    for cell in todo:
        outcome = run_cell(cell, setup)
        found = {key: numbers(outcome)[key] for key in expected[cell.method["name"], cell.seed]}
        assert found == pytest.approx(expected[cell.method["name"], cell.seed], abs=1e-6)
        low, high = outcome["intervals"]["accuracy"]
        assert low <= found["accuracy"] <= high and outcome["params"]["images"] == 40


def test_it_does_not_matter_what_ran_before():
    todo, setup = cells()
    torch.manual_seed(5)
    first = {cell.key: numbers(run_cell(cell, setup)) for cell in todo}
    for cell in reversed(todo):
        forget()
        assert numbers(run_cell(cell, setup)) == first[cell.key]


def test_passes_harm_and_alarm_are_told():
    todo, setup = cells(seeds=[0])
    found = {cell.method["name"]: run_cell(cell, setup)["metrics"] for cell in todo}
    assert [found[name]["forward_per_image"] for name in ("source", "bn", "tent")] == [1, 1, 1]
    assert [found[name]["backward_per_image"] for name in ("source", "bn", "tent")] == [0, 0, 1]
    assert found["source"]["harm"] == found["source"]["gain"] == 0
    for one in found.values():
        assert one["accuracy"] == pytest.approx(found["source"]["accuracy"] + one["gain"] - one["harm"])
        assert one["collapse_alarm"] in (0, 1)


def test_an_undefined_number_has_its_reason():
    todo, setup = cells({"images": 4}, batch_sizes=[4], seeds=[0], methods=["source"])
    y = load("phantoms", "test", n=4, scanner="C").labels
    assert len(np.unique(y)) < 6
    monkey = dataclasses.replace(todo[0], stream={"order": "class", "options": {}})
    outcome = run_cell(monkey, setup)
    assert set(outcome["reasons"]) == {key for key, value in outcome["metrics"].items() if np.isnan(value)}


class Counting:
    def __init__(self):
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def __call__(self, x):
        self.calls.append(x)
        return x


@pytest.mark.parametrize(
    ("every", "calls"),
    [
        (0, [0, 1, 2, 3, 4]),
        (1, [0, "reset", 1, "reset", 2, "reset", 3, "reset", 4]),
        (2, [0, 1, "reset", 2, 3, "reset", 4]),
    ],
)
def test_resets_come_before_every_nth_batch(every, calls):
    method = Counting()
    run = with_resets(method, every)
    assert [run(i) for i in range(5)] == list(range(5)) and method.calls == calls


def test_an_episodic_cell_is_the_episodic_method():
    todo, setup = cells(
        methods=["tent", {"name": "tent", "episodic": True}], resets=["never", "episodic"], seeds=[0]
    )
    found = {(bool(c.method["settings"]), c.reset): numbers(run_cell(c, setup)) for c in todo}
    assert found[False, 1] == found[True, 0] == found[True, 1] != found[False, 0]


def test_a_rule_chooses_on_what_it_may_see_and_the_row_says_so():
    tent = {"name": "tent", "candidates": [{"lr": 1.0}, {"lr": 0.001}]}
    rules = [
        {**tent, "selection": "source validation"},
        {**tent, "selection": "held_out_shift", "held_out": ["gamma", 2]},
        {**tent, "selection": "oracle"},
    ]
    todo, setup = cells(methods=rules, seeds=[0])
    told = {cell.method["selection"]: run_cell(cell, setup)["params"] for cell in todo}
    assert told["source_validation"]["selected_on"] == "phantoms scanner=AB split=val, none 0"
    assert told["held_out_shift"]["selected_on"] == "phantoms scanner=AB split=val, gamma 2"
    assert told["oracle"]["selected_on"] == "phantoms scanner=C, blur 3"
    assert all(params["candidates"] == 2 and params["settings"] == {"lr": 0.001} for params in told.values())
    assert todo[0].params()["method"].endswith("of 2)")


def test_a_method_sees_source_images_first():
    todo, setup = cells({"imports": ["bench_methods"], "source_images": 24}, methods=["needs_source"], seeds=[0])
    assert todo[0].source_images == 24
    assert numbers(run_cell(todo[0], setup))["harm"] == 0


def test_a_contrast_shows_the_views_of_the_training(tmp_path, monkeypatch):
    """TTT++ by name: a spec can't hold a function, and other views than the training's would be another method."""
    model = create_model("resnet_small_simclr", num_classes=6, in_chans=1)
    views = {"scale": [0.5, 0.9], "flip": 0.0}
    card = checkpoint_card("resnet_small-phantoms-s0") | {
        "model": "resnet_small_simclr",
        "config": {"views": views},
    }
    save_checkpoint(
        model, "resnet_small_simclr-phantoms-s0", card | {"name": "resnet_small_simclr-phantoms-s0"}, tmp_path
    )
    todo, setup = cells(
        {"checkpoints": str(tmp_path), "source_images": 32},
        methods=["ttt_plus_plus"], models=["resnet_small_simclr"], seeds=[0],
    )  # fmt: skip
    seen = []
    monkeypatch.setattr(TTTPlusPlus, "learn_source", lambda self, batches: seen.append(self.views))
    run_cell(todo[0], setup)
    assert seen == [TwoViews(scale=(0.5, 0.9), flip=0.0)]
    monkeypatch.undo()
    forget()
    assert numbers(run_cell(todo[0], setup))["backward_per_image"] >= 1


@pytest.mark.parametrize("batch_size", [1, 16])
def test_source_images_do_not_come_as_the_patients_do(batch_size, monkeypatch):
    """Moments of the source can't be had from single images, and need not: the vendor measures them beforehand."""
    seen = []
    monkeypatch.setattr(EATA, "learn_source", lambda self, batches: seen.extend(len(x) for x in batches))
    for count, expected in ((160, [64, 64, 32]), (32, [16, 16])):
        todo, setup = cells({"source_images": count}, methods=["eata"], seeds=[0], batch_sizes=[batch_size])
        seen.clear()
        run_cell(todo[0], setup)
        assert seen == expected


@pytest.mark.parametrize("name", ["eata", "sar", "t3a", "lame", "shot_im"])
def test_a_second_head_is_no_hindrance(name):
    """The rotation head has a norm that the class logits do not pass, and a last layer that is no classifier."""
    model = create_model("resnet_small_rotation", num_classes=6, in_chans=1, norm="gn")
    x = torch.rand(8, 1, 32, 32)
    method = create_method(name, model)
    if needs_source(name):
        method.fit_source([x])
    before = method.model.backbone.fc.weight.clone()
    assert method(x).isfinite().all() and method(x).shape == (8, 6)
    assert torch.equal(method.model.backbone.fc.weight, before)  # SHOT froze the head of the other task


@pytest.mark.parametrize("stream", ["gradual", {"schedule": "mixed", "conditions": "xray-light"}])
def test_streams_that_change_on_the_way(stream):
    shifts = {"shifts": ["none"], "severities": []} if isinstance(stream, dict) else {}
    todo, setup = cells(streams=[stream], methods=["source", "tent"], seeds=[0], **shifts)
    assert [run_cell(cell, setup)["params"]["images"] for cell in todo] == [40, 40]


def test_a_fault_is_an_outcome_and_not_an_end():
    todo, setup = cells({"imports": ["bench_methods"]}, methods=["broken"], seeds=[0])
    outcome = run_cell(todo[0], setup)
    assert (
        outcome["error"].startswith("RuntimeError: out of order (bench_methods.py, line ")
        and "metrics" not in outcome
    )


def test_other_weights_than_the_cells_are_a_fault():
    todo, setup = cells(seeds=[0])
    assert "other weights" in run_cell(dataclasses.replace(todo[0], weights="0" * 12), setup)["error"]


def test_threads_and_random_numbers_are_given_back():
    todo, setup = cells(seeds=[0], methods=["bn"])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    try:
        run_cell(todo[0], setup)
        assert torch.get_num_threads() == 2
        assert (torch.rand(1), np.random.rand()) == expected
    finally:
        torch.set_num_threads(before)


def test_a_method_by_name():
    model = load_checkpoint("resnet_small-phantoms-s0")
    assert create_method("tent", model, lr=0.5).lr == 0.5
    with pytest.raises(SeminarError, match="did you mean 'tent'"):
        create_method("tnt", model)
    with pytest.raises(SeminarError, match="takes no settings"):
        create_method("source", model, lr=1)
