import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.runtime import SeminarError


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "deep" / "results.jsonl")


def test_a_row_says_where_it_comes_from(store):
    row = store.append("tent", {"batch": 16}, {"accuracy": np.float32(0.5)}, {"accuracy": (0.4, 0.6)}, [0, 1], 1.5)
    assert store.rows() == [row]
    assert row["metrics"]["accuracy"] == 0.5 and row["intervals"]["accuracy"] == [0.4, 0.6]
    assert row["seed"] == [0, 1] and row["seconds"] == 1.5 and row["versions"]["torch"].startswith("2.")
    assert {"id", "time", "profile", "device", "commit"} <= row.keys()


def test_rows_are_found_by_dotted_names(store):
    for batch in (4, 16):
        store.append("tent", {"batch": batch}, {"accuracy": torch.tensor(batch / 16)})
    assert [row["metrics"]["accuracy"] for row in store.rows(**{"params.batch": 16})] == [1.0]
    assert store.rows(experiment="other") == []
    with pytest.raises(SeminarError, match="no row"):
        store.latest(experiment="other")


def test_nan_is_stored_as_null(store):
    store.append("tent", {}, {"recall": float("nan")})
    assert store.rows()[0]["metrics"]["recall"] is None


def test_a_half_written_last_line_is_told_and_costs_no_other_row(store):
    store.append("one", {}, {})
    with store.path.open("a") as file:
        file.write('{"schema": 1, "experiment": "cra')
    store.append("two", {}, {})
    with pytest.warns(UserWarning, match="line 2"):
        assert [row["experiment"] for row in store.rows()] == ["one", "two"]


def test_rows_of_another_schema_are_skipped(store):
    store.append("one", {}, {})
    store.path.write_text(json.dumps({"schema": 99}) + "\n" + store.path.read_text())
    with pytest.warns(UserWarning, match="foreign"):
        assert len(store.rows()) == 1


def test_two_processes_do_not_mix_their_rows(store):
    code = (
        "import sys; from seminar_utils.evaluation.results import ResultsStore\n"
        "for i in range(40): ResultsStore(sys.argv[1]).append('p', {'who': sys.argv[2], 'pad': 'x' * 500}, {})"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(store.path), who]) for who in "ab"]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    assert len(store.rows()) == 80


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SeminarError, match="can't be written"):
        ResultsStore(tmp_path / "file" / "results.jsonl").append("x", {}, {})


def test_the_environment_names_the_file_that_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "mine.jsonl"))
    ResultsStore().append("mine", {}, {})
    assert (tmp_path / "mine.jsonl").exists()
    assert ResultsStore().rows(experiment="mine")
