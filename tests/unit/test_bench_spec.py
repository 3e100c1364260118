"""From SPEC.toml to cells: keys, expansions, and everything that is refused before anything runs."""

import copy
import itertools
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from seminar_utils.adaptation.registry import METHODS, preparation
from seminar_utils.checkpoints.course import UNSHIPPED, checkpoint_card
from seminar_utils.data.real_sets import CELLS
from seminar_utils.evaluation.bench_cells import Cell, data_name, stream_name, words
from seminar_utils.evaluation.bench_check import check_cells
from seminar_utils.evaluation.bench_entries import data_entry, stream_entry
from seminar_utils.evaluation.bench_spec import load_spec, parse_spec
from seminar_utils.models import create_model
from seminar_utils.recipes import RECIPES
from seminar_utils.recipes.supervised import Unshipped
from seminar_utils.runtime import SeminarError

GRID = {
    "methods": ["source", "bn", {"name": "tent", "lr": 0.01}],
    "models": ["resnet_small"],
    "data": [{"name": "phantoms", "scanner": "C"}],
    "shifts": ["none", "blur"],
    "severities": [1, 3],
    "batch_sizes": [8, 16],
    "seeds": [0, 1],
}
SPEC = {"name": "try", "images": 32, "grid": [GRID]}


def changed(**entries):
    """The spec with other entries in its grid, or (in capitals) at its top."""
    spec = copy.deepcopy(SPEC)
    for key, value in entries.items():
        place = spec if key.isupper() else spec["grid"][0]
        place.pop(key.lower(), None) if value is ... else place.update({key.lower(): value})
    return spec


def test_a_grid_is_every_combination_and_none_has_no_severity():
    cells = parse_spec(SPEC).cells
    assert len(cells) == 3 * 3 * 2 * 2
    assert {(c.shift, c.severity) for c in cells} == {("none", 0), ("blur", 1), ("blur", 3)}
    assert {(c.seed, c.checkpoint) for c in cells} == {(s, f"resnet_small-phantoms-s{s}") for s in (0, 1)}
    assert len({cell.key for cell in cells}) == len(cells)


def test_a_key_depends_on_the_parameters_and_not_on_their_order():
    turned = changed(seeds=[1, 0], methods=GRID["methods"][::-1], batch_sizes=[16, 8])
    turned["grid"][0] = dict(reversed(turned["grid"][0].items()))
    first, second = parse_spec(SPEC).cells, parse_spec(turned).cells
    assert [cell.key for cell in first] == [cell.key for cell in second]


def test_a_key_is_the_same_on_every_machine():
    """A new key would run all cells of all stores again: raise BENCH_VERSION when you mean to."""
    tent, data = (
        {"name": "tent", "settings": {"lr": 0.01}},
        {"name": "pneumoniamnist", "split": "test", "options": {}},
    )
    stream = {"order": "iid", "options": {}}
    cell = Cell(tent, "m", "m-s0", "0123456789ab", data, "blur", 3, stream, 64, 0, 0, 500, 200)
    assert cell.key == "9b5b804d76297ffe" == replace(cell, model="another name of it").key


@pytest.mark.parametrize(
    "other",
    [{"IMAGES": 31}, {"RESAMPLES": 100}, {"streams": ["class"]}, {"resets": ["episodic"]}, {"seeds": [2]},
     {"batch_sizes": [4, 32]}, {"data": ["phantoms"]}, {"methods": [{"name": "tent", "lr": 0.1}]}],
)  # fmt: skip
def test_what_changes_the_numbers_changes_the_key(other):
    keys = {cell.key for cell in parse_spec(SPEC).cells}
    assert not keys & {cell.key for cell in parse_spec(changed(**other)).cells}


def test_what_does_not_change_the_numbers_does_not_change_the_key():
    keys = {cell.key for cell in parse_spec(SPEC).cells}
    same = [
        changed(data=[{"name": "phantoms", "scanner": "C", "strength": 1.0, "split": "test"}]),
        changed(models=["resnet_small-phantoms"]),
        changed(methods=["source", {"name": "bn", "policy": "batch"}, {"name": "tent", "lr": 0.01, "steps": 1}]),
    ]
    assert all({cell.key for cell in parse_spec(spec).cells} == keys for spec in same)


def test_grids_join_and_a_named_checkpoint_keeps_its_training_seed():
    more = {**GRID, "models": ["resnet_small-phantoms-s2"], "seeds": [0, 5]}
    cells = parse_spec({**SPEC, "grid": [GRID, more]}).cells
    assert len(cells) == 2 * 36
    assert {c.seed for c in cells if c.checkpoint == "resnet_small-phantoms-s2"} == {0, 5}


def test_a_set_of_shifts_brings_its_severities_and_leaves_colour_out():
    cells = parse_spec(
        changed(shifts=["pathology"], severities=..., methods=["bn"], batch_sizes=[8], seeds=[0])
    ).cells
    assert {c.shift for c in cells} == {"blur", "jpeg"} and {c.severity for c in cells} == {1, 2, 3, 4, 5}


def test_names_say_what_is_not_usual():
    assert data_name(data_entry({"name": "phantoms", "scanner": "C"})) == "phantoms scanner=C"
    assert data_name(data_entry({"name": "wbc", "domain": "d2"})) == "wbc domain=d2"
    assert stream_name(stream_entry({"order": "dirichlet", "delta": 0.1})) == "dirichlet delta=0.1"
    assert stream_name(stream_entry("gradual")) == "gradual"
    mixed = {"schedule": "mixed", "conditions": [["blur", 3], ["none", 0]]}
    assert stream_name(stream_entry(mixed)) == "mixed blur 3+none"


CANDIDATES = [{"lr": 0.1}, {"lr": 0.001}]
BAD = {
    "a method": ({"methods": ["tnet"]}, "unknown method 'tnet': did you mean 'tent'"),
    "a setting": ({"methods": [{"name": "tent", "lrr": 1}]}, "unknown setting of tent 'lrr': did you mean 'lr'"),
    "a setting of none": ({"methods": [{"name": "source", "lr": 1}]}, "setting of source"),
    "a model": ({"models": ["resnet_smal"]}, "unknown model 'resnet_smal': did you mean"),
    "a seed": ({"seeds": [7]}, "seed 7 has no checkpoint"),
    "no classifier": ({"models": ["mae_tiny"]}, "is no classifier"),
    "data": ({"data": ["phantom"]}, "unknown data set 'phantom': did you mean 'phantoms'"),
    "an option": ({"data": [{"name": "phantoms", "scaner": "C"}]}, "'scaner': did you mean 'scanner'"),
    "a split": ({"data": [{"name": "phantoms", "split": "tests"}]}, "unknown split"),
    "a shift": ({"shifts": ["blurr"]}, "unknown shift 'blurr': did you mean 'blur'"),
    "a severity": ({"severities": [6]}, "severities lie in"),
    "an order": ({"streams": ["idd"]}, "unknown stream order 'idd': did you mean 'iid'"),
    "an order's option": ({"streams": [{"order": "iid", "delta": 1}]}, "takes the options"),
    "an order's value": ({"streams": [{"order": "dirichlet", "delta": -1}]}, "delta is a number above 0"),
    "a schedule": ({"streams": [{"schedule": "slow"}]}, "unknown schedule"),
    "a reset": ({"resets": ["often"]}, "'often'"),
    "a reset of none": ({"resets": [0]}, "a number of batches from 1"),
    "a batch": ({"batch_sizes": [0]}, "at least 1"),
    "a key of a grid": ({"methds": ["bn"]}, "'methds': did you mean 'methods'"),
    "a key at the top": ({"IMAGE": 3}, "'image': did you mean 'images'"),
    "a rule": ({"methods": [{"name": "tent", "selection": "oracl"}]}, "did you mean 'oracle'"),
    "no name": ({"NAME": ...}, "needs a name"),
    "no grid": ({"GRID": []}, "at least one"),
    "no methods": ({"methods": []}, "methods has none"),
    "an import": ({"IMPORTS": ["no_such_module"]}, "can't be imported"),
    "no folder": ({"CHECKPOINTS": "nowhere"}, "names a folder"),
    "severity without shift": ({"shifts": ["none"]}, "without a shift"),
    "shift without severity": ({"severities": []}, "needs severities"),
    "colour on grey": ({"shifts": ["stain_jitter"]}, "needs colour"),
    "batch above images": ({"batch_sizes": [64]}, "a batch of 64 can't be filled"),
    "another task": ({"data": ["pneumoniamnist"], "models": ["vit_small_14"]}, "unknown model"),
    "not trained on it": ({"data": ["wbc"], "models": ["mae_tiny"]}, "was trained on 'wbc'"),
    "not prepared": ({"methods": ["source", "ttt"]}, "ttt needs a model that was prepared for it in training "
                     "(resnet_small_rotation); resnet_small-phantoms-s0 is a resnet_small"),
    "one class only": ({"data": ["nuclei"]}, "no checkpoint of 'resnet_small' was trained on 'nuclei'"),
    "gradual nothing": ({"streams": ["gradual"]}, "the shift is none"),
    "shift twice": ({"streams": [{"schedule": "mixed", "conditions": "ct"}], "shifts": ["blur"]}, "as well"),
    "held out is tested": ({"methods": [{"name": "tent", "selection": "held-out shift", "held_out": ["blur", 3],
                                         "candidates": CANDIDATES}]}, "the tested shift itself"),
    "nothing held out": ({"methods": [{"name": "tent", "selection": "held_out_shift", "candidates": CANDIDATES}]},
                         "belongs to the rule held_out_shift"),
    "no candidates": ({"methods": [{"name": "tent", "selection": "oracle"}]}, "needs candidates"),
    "candidates by default": ({"methods": [{"name": "tent", "candidates": CANDIDATES}]}, "need a selection rule"),
    "a cell twice": ({"seeds": [0, 0]}, "twice in grid 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_is_refused(what):
    entries, told = BAD[what]
    with pytest.raises(SeminarError) as error:
        parse_spec(changed(**entries))
    assert told in str(error.value)


def test_one_cell_in_two_grids_is_refused():
    with pytest.raises(SeminarError, match="in grid 1 and in grid 2: method bn"):
        parse_spec({**SPEC, "grid": [GRID, {**GRID, "methods": ["bn"]}]})


def cards_only(folder, *names, **entries):
    """A folder of checkpoints as far as a spec reads it: cards, made from a shipped one, and no weights."""
    card = checkpoint_card("resnet_small-phantoms-s0")
    for name in names:
        (folder / f"{name}.safetensors").touch()
        (folder / f"{name}.json").write_text(json.dumps(card | {"name": name} | entries))
    return str(folder)


@pytest.mark.parametrize("method", ["ttt", "ttt_plus_plus", "neighbor_labels"])
def test_a_prepared_method_runs_on_its_own_network_beside_its_controls(method, tmp_path):
    model = f"resnet_small_{preparation(method)}"
    folder = cards_only(tmp_path, f"{model}-phantoms-s0", model=model)
    entries = {"methods": ["source", "bn", "tent", method], "models": [model], "seeds": [0], "shifts": ["none"]}
    cells = parse_spec(changed(**entries, severities=..., CHECKPOINTS=folder)).cells
    assert {cell.method["name"] for cell in cells} == {"source", "bn", "tent", method}
    for other in {"ttt", "ttt_plus_plus", "neighbor_labels"} - {method}:
        with pytest.raises(SeminarError, match=f"{other} needs a model .*resnet_small_{preparation(other)}"):
            parse_spec(changed(**entries | {"methods": [other]}, severities=..., CHECKPOINTS=folder))


@pytest.mark.parametrize("domain", ["d1", "d2"])
def test_weights_that_do_not_ship_are_told_with_the_command(domain, tmp_path):
    """The folder stands for a fresh clone: the course's own may hold weights that somebody made."""
    wbc = {"data": [{"name": "wbc", "domain": domain}], "seeds": [1], "shifts": ["none"], "severities": ...}
    folder = cards_only(tmp_path, "resnet_small-phantoms-s1")
    with pytest.raises(
        SeminarError, match="no weights of 'resnet_small-wbc' .*seminar pretrain resnet_small-wbc-s1"
    ):
        parse_spec(changed(**wbc, CHECKPOINTS=folder))
    cards_only(tmp_path, "resnet_small-wbc-s1")
    cells = parse_spec(changed(**wbc, CHECKPOINTS=folder)).cells
    assert {cell.checkpoint for cell in cells} == {"resnet_small-wbc-s1"}


def test_what_does_not_ship_has_a_recipe_that_says_so():
    unshipped = {family for family, recipe in RECIPES.items() if isinstance(recipe, Unshipped)}
    assert set(UNSHIPPED) == unshipped
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text()
    assert all(f"/data/checkpoints/*-{RECIPES[family].data}-s*" in ignored for family in unshipped)


def test_white_cells_without_their_images_are_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    folder = cards_only(tmp_path, "resnet_small-wbc-s0", class_names=list(CELLS))
    monkeypatch.setattr(
        "seminar_utils.evaluation.bench_run.load_checkpoint", lambda *_: create_model("resnet_small")
    )
    wbc = {"data": [{"name": "wbc", "domain": "d2"}], "seeds": [0], "shifts": ["none"], "severities": ...}
    spec = parse_spec(changed(**wbc, CHECKPOINTS=folder))
    with pytest.raises(SeminarError, match="'wbc' does not ship: .*SEMINAR_DATA, which is not set"):
        check_cells(list(spec.cells), spec.setup)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (
            {"methods": ["bn"], "models": ["vit_tiny"], "seeds": [0]},
            "can't be used on vit_tiny-phantoms-s0.*BatchNorm",
        ),
        ({"methods": [{"name": "tent", "lr": -1.0}]}, "can't be used.*not negative"),
        ({"data": [{"name": "phantoms", "task": "place"}]}, "tells 6 classes.*apart, phantoms task=place has 4"),
        ({"data": ["pneumoniamnist"], "models": ["resnet_small-phantoms"]}, "pneumoniamnist"),
        ({"data": [{"name": "phantoms", "scanner": "Z"}]}, "scanner"),
    ],
)
def test_is_refused_when_it_is_tried(entries, told, monkeypatch):
    monkeypatch.delenv("SEMINAR_DATA", raising=False)
    monkeypatch.setenv("SEMINAR_MIRROR", "http://127.0.0.1:9")
    spec = parse_spec(changed(**entries))
    with pytest.raises(SeminarError, match=told):
        check_cells(list(spec.cells), spec.setup)


@pytest.mark.parametrize(
    ("text", "told"), [("name = ", "not valid TOML"), ("name = 'x'", "at least one"), (None, "read")]
)
def test_a_bad_file_is_named(tmp_path, text, told):
    path = tmp_path / "bad.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SeminarError, match=f"bad.toml.*{told}"):
        load_spec(path)


UNSHIPPED_SPECS = {"test_time_wbc": [f"resnet_small-wbc-s{seed}" for seed in (0, 1, 2)]}


def test_the_specs_that_ship_are_sound(root, tmp_path):
    """Those on weights that do not ship are read with cards made up for them."""
    specs = {}
    for path in sorted((root / "benchmarks" / "specs").glob("*.toml")):
        if path.stem in UNSHIPPED_SPECS:
            folder = cards_only(tmp_path, *UNSHIPPED_SPECS[path.stem])
            specs[path.stem] = parse_spec(tomllib.loads(path.read_text()) | {"checkpoints": folder})
        else:
            specs[path.stem] = load_spec(path)
    assert {name: spec.name for name, spec in specs.items()} == {name: name for name in specs} and "smoke" in specs
    for one, other in itertools.combinations(specs.values(), 2):
        assert one.name != other.name


def test_the_test_time_benchmark_has_every_method_each_prepared_one_beside_its_controls(root):
    cells = load_spec(root / "benchmarks" / "specs" / "test_time.toml").cells
    slow = load_spec(root / "benchmarks" / "specs" / "test_time_slow.toml").cells
    ours = {  # tests add some; who tunes a prompt needs a CLIP, no benchmark's model
        name
        for name, made in METHODS.items()
        if made.__module__.startswith("seminar_utils.") and preparation(name) != "prompts"
    }
    assert {cell.method["name"] for cell in (*cells, *slow)} == ours
    beside = {}
    for cell in cells:
        condition = (
            cell.checkpoint,
            words(cell.data),
            cell.shift,
            cell.severity,
            words(cell.stream),
            cell.batch_size,
        )
        beside.setdefault((*condition, cell.seed), set()).add(cell.method["name"])
    for condition, methods in beside.items():
        assert "source" in methods and ("bn" in methods or "_gn" in condition[0] or "vit" in condition[0])


def test_a_method_that_tunes_a_prompt_is_refused(tmp_path):
    grid = {"methods": ["tpt"], "models": ["resnet_small"], "data": ["phantoms"], "seeds": [0]}
    with pytest.raises(SeminarError, match="tunes a PromptedCLIP's prompt"):
        parse_spec({"name": "x", "images": 64, "grid": [grid]}, tmp_path)
