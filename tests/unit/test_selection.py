import math

import pytest
import torch
from torch import nn

from seminar_utils.adaptation import Source, Tent
from seminar_utils.evaluation.measure import measure, summarise
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.evaluation.selection import RULES, select, selection_report
from seminar_utils.runtime import SeminarError

DEFAULT = {"lr": 1e-3}
GRID = [{"lr": lr} for lr in (1e-4, 1e-3, 1e-2, 1e-1)]
ON_TEST = {1e-4: 0.70, 1e-3: 0.72, 1e-2: 0.80, 1e-1: 0.10}
ON_BLUR = {1e-4: 0.71, 1e-3: 0.74, 1e-2: 0.74, 1e-1: 0.20}
ON_SOURCE = {1e-4: 0.95, 1e-3: 0.94, 1e-2: 0.90, 1e-1: 0.30}


def score(table):
    return lambda settings: table[settings["lr"]]


SCORES = {
    "oracle": ("gamma 3", score(ON_TEST)),
    "held_out_shift": ("blur 3", score(ON_BLUR)),
    "source_validation": ("source validation", score(ON_SOURCE)),
}


def test_the_default_looks_at_nothing():
    chosen = select("default", GRID, default=DEFAULT)
    assert chosen.settings == DEFAULT and math.isnan(chosen.score) and chosen.scored_on == "nothing"
    assert chosen.label("Tent") == "Tent"


def test_the_best_on_the_allowed_data_wins_and_ties_go_to_the_earlier():
    chosen = select("held_out_shift", GRID, score=score(ON_BLUR), scored_on="blur 3", tested_on="gamma 3")
    assert chosen.settings == {"lr": 1e-3} and chosen.score == 0.74 and chosen.candidates == 4
    assert chosen.label("Tent") == "Tent (held out shift)"


def test_an_undefined_score_never_wins():
    table = {**ON_TEST, 1e-2: math.nan}
    assert select("oracle", GRID, score=score(table), scored_on="x", tested_on="x").settings == DEFAULT


def test_the_choice_is_recorded_and_the_oracle_never_goes_unnamed():
    chosen = select("oracle", GRID, score=score(ON_TEST), scored_on="gamma 3", tested_on="gamma 3")
    assert chosen.recorded() == {
        "selection": "oracle",
        "selected_on": "gamma 3",
        "candidates": 4,
        "settings": {"lr": 1e-2},
    }
    assert "oracle" in chosen.label("Tent")


def test_the_report_gives_the_distance_between_default_and_oracle():
    report = selection_report(GRID, DEFAULT, SCORES)
    assert list(report.chosen) == list(RULES)
    assert report.tested == {"default": 0.72, "source_validation": 0.70, "held_out_shift": 0.72, "oracle": 0.80}
    assert report.gap == pytest.approx(0.08) and "distance between default and oracle: 0.080" in str(report)
    assert [row["params"]["selection"] for row in report.rows()] == list(RULES)
    assert report.rows()[1]["metrics"]["below_oracle"] == pytest.approx(0.10)


def test_the_default_competes_even_if_the_grid_forgot_it():
    table = {1e-4: 0.5, 1e-1: 0.4, 1e-3: 0.9}
    report = selection_report([GRID[0], GRID[3]], DEFAULT, {"oracle": ("test", score(table))})
    assert report.gap == 0 and list(report.chosen) == ["default", "oracle"]


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        ("orakel", {}, "did you mean 'oracle'"),
        ("default", {}, "needs the published settings"),
        ("source_validation", {}, "source's labelled validation split, but a score is missing"),
        ("held_out_shift", {"score": score(ON_BLUR)}, "other than the tested one, but the name of the data"),
        ("held_out_shift", {"score": score(ON_BLUR), "scored_on": "blur 3"}, "needs tested_on"),
        (
            "held_out_shift",
            {"score": score(ON_TEST), "scored_on": "gamma 3", "tested_on": "gamma 3"},
            "that is the oracle",
        ),
        ("source_validation", {"score": score(ON_TEST), "scored_on": "t", "tested_on": "t"}, "that is the oracle"),
        ("oracle", {"score": score(ON_BLUR), "scored_on": "blur 3", "tested_on": "gamma 3"}, "not at 'blur 3'"),
        ("oracle", {"score": lambda s: math.nan, "scored_on": "t"}, "all 4 scores"),
    ],
)
def test_a_rule_without_its_evidence_is_refused(rule, options, words):
    with pytest.raises(SeminarError, match=words):
        select(rule, GRID, **options)


def test_a_rule_without_candidates_and_a_report_without_oracle_are_refused():
    with pytest.raises(SeminarError, match="needs candidates"):
        select("oracle", [], score=score(ON_TEST), scored_on="t")
    with pytest.raises(SeminarError, match="under 'oracle'"):
        selection_report(GRID, DEFAULT, {})
    with pytest.raises(SeminarError, match="unknown selection rule"):
        selection_report(GRID, DEFAULT, {"best": ("t", score(ON_TEST))})


def test_measured_rows_say_how_their_settings_were_chosen(tmp_path):
    torch.manual_seed(0)
    models = {
        seed: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for seed in (0, 1)
    }
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    oracle = select("oracle", GRID, score=score(ON_TEST), scored_on="noise", tested_on="noise")
    rows = measure(
        "try",
        {"source": Source, "Tent": lambda m: Tent(m, **oracle.settings)},
        models,
        x,
        y,
        store=ResultsStore(tmp_path / "rows.jsonl"),
        selections={"Tent": oracle},
    )
    assert rows[1]["params"]["selection"] == "oracle" and rows[1]["params"]["settings"] == {"lr": 1e-2}
    assert set(summarise(rows)) == {"source", "Tent (oracle)"}
    assert "selection" not in rows[0]["params"]
