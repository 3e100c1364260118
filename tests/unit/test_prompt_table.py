"""The recipe of lesson 14's table: rows of every kind, resumed where it stopped, no target label in training."""

import numpy as np
import pytest

from seminar_utils.adaptation import PromptConfig
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.recipes import prompt_parts as parts
from seminar_utils.recipes import prompt_table as recipe

SMALL = parts.TableConfig(
    pool=40,
    test=24,
    tpt_images=2,
    n_views=10,
    shots=(1,),
    epochs={1: 2},
    cocoop=PromptConfig(epochs=1, batch_size=2),
    dapl=PromptConfig(epochs=1, batch_size=20),
    seeds=(0, 1),
    factors=("tone",),
    n_boot=20,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    found = ResultsStore(tmp_path_factory.mktemp("prompts") / "rows.jsonl")
    recipe.measure_table(SMALL, found)
    return found


def test_every_method_on_source_and_target(store):
    rows = store.rows(experiment=recipe.EXPERIMENT)
    methods = {row["params"]["method"]: row["params"]["setting"] for row in rows}
    dapl = {"DAPL", "DAPL, 2K-way"}
    offline = {"CoOp", "CoCoOp", "linear probe", "Tip-Adapter", "Tip-Adapter-F"}
    offline |= dapl | {f"{method}, prompts swapped" for method in dapl}
    assert {m for m, setting in methods.items() if setting == "offline"} == offline
    assert {m for m, setting in methods.items() if setting == "test-time"} == {"TPT", "C-TPT"}
    for method in methods:
        mine = [row for row in rows if row["params"]["method"] == method]
        assert {parts.SOURCE, parts.TARGET} <= {row["params"]["tried_on"] for row in mine}
        assert {row["seed"] for row in mine} == ({0} if "zero" in method or "ensemble" in method else {0, 1})
        assert all({"accuracy", "ece", "ahead", "ece_change"} <= set(row["intervals"]) for row in mine)
    plain = [row for row in rows if row["params"]["method"] == "zero-shot"]
    assert {row["metrics"]["ahead"] for row in plain} == {0.0}
    dapl = [row["metrics"] for row in rows if row["params"]["method"] == "DAPL"]
    assert all(0 <= m["kept"] <= 1 and 0 <= m["pseudo_right"] <= 1 for m in dapl)


def test_dapl_asks_each_scanner_with_its_own_prompt():
    bench = parts.Workbench(SMALL)
    rows = [one for one in parts.offline_domains(bench, "tone", 0) if one.about["softmax"] == "code"]
    asked = {(one.about["method"], one.tried_on == parts.SOURCE): one.about["prompt"] for one in rows}
    own = {("DAPL", True): "source", ("DAPL", False): "target"}
    swapped = {("DAPL, prompts swapped", True): "target", ("DAPL, prompts swapped", False): "source"}
    assert asked == own | swapped
    here = [one.probs for one in rows if one.tried_on == parts.SOURCE][:2]
    assert not np.allclose(*here)


def test_what_is_there_is_not_measured_again(store):
    assert recipe.measure_table(SMALL, store) == []


def test_a_part_whose_last_row_is_missing_is_done_again(store, tmp_path):
    lines = store.path.read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:3]) + "\n")  # killed while the first part was written
    config = parts.replace(SMALL, seeds=(0,))
    recipe.measure_table(parts.replace(config, n_boot=20), ResultsStore(tmp_path / "rows.jsonl"))
    rows = ResultsStore(tmp_path / "rows.jsonl").rows()
    one, other = recipe.prompt_table(rows), recipe.prompt_table(store.rows(seed=0))
    assert {key: found.mean for key, found in one.items()} == {key: found.mean for key, found in other.items()}


def test_the_table_takes_means_over_seeds(store):
    table = recipe.prompt_table(store.rows(), "accuracy")
    key = ("CoOp", parts.SOURCE, 1, None, "tone", parts.TARGET)
    values = [
        row["metrics"]["accuracy"]
        for row in store.rows(**{"params.method": "CoOp"})
        if row["params"]["tried_on"] == parts.TARGET and row["params"]["labelled"] == parts.SOURCE
    ]
    assert len(values) == 2 and table[key].mean == pytest.approx(np.mean(values))
    zero = table["zero-shot", None, None, None, "tone", parts.TARGET]
    assert zero.low <= zero.mean <= zero.high


def test_seeds_that_agree_have_the_interval_over_the_images():
    row = {"params": {"method": "TPT"}, "metrics": {"ahead": 0.05}, "intervals": {"ahead": [0.0, 0.1]}}
    (found,) = recipe.prompt_table([{**row, "seed": seed} for seed in (0, 1, 2)], "ahead").values()
    assert (found.mean, found.low, found.high) == (0.05, 0.0, 0.1)


def test_an_interval_over_seeds_stays_in_the_range_of_its_metric():
    rows = [
        {"params": {}, "seed": seed, "metrics": {"accuracy": a, "ahead": a - 1}}
        for seed, a in enumerate((0.1, 0.9))
    ]
    accuracy, ahead = recipe.over_seeds(rows, "accuracy"), recipe.over_seeds(rows, "ahead")
    assert (accuracy.low, accuracy.high) == (0, 1)
    assert ahead.low == -1 and ahead.high == 1


def test_no_phantom_is_in_two_sets():
    bench = parts.Workbench(SMALL)
    seen = {}
    for key in [("train", parts.SOURCE), ("train", parts.TARGET), ("test", parts.TARGET)]:
        factors = bench.sets[key].factors
        seen[key] = set(zip(*(np.asarray(factors[name]).tolist() for name in ("cx", "cy"))))
    sets = list(seen.values())
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert bench.images("train", parts.TARGET).shape == (40, 1, 64, 64)


def test_target_labels_enter_only_where_the_row_says_so(store, monkeypatch):
    """With the target's labels shuffled, what learns without them says the same."""
    bench = parts.Workbench(SMALL)
    honest = [one.probs for one in parts.offline_domains(bench, "tone", 0)]
    true = bench.labels

    def shuffled(split, data, factor):
        values = true(split, data, factor)
        return values if data == parts.SOURCE else values[::-1]

    monkeypatch.setattr(bench, "labels", shuffled)
    again = [one.probs for one in parts.offline_domains(bench, "tone", 0)]
    assert all(np.array_equal(a, b) for a, b in zip(honest, again))
