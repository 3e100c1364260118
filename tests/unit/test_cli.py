"""The `seminar` command: what it lists, what it prints, and its exit status."""

import json
import subprocess
import sys

import pytest

from seminar_utils import cli
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.runtime import SeminarError

COMMANDS = (
    "course",
    "lab",
    "doctor",
    "notebooks",
    "results",
    "pretrain",
    "checkpoints",
    "fetch",
    "bench",
    "readme",
    "progress",
)


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name}" in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0 and f"seminar {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["corse"], ["course", "--cell-timeout", "soon"], ["notebooks", "bake"]])
def test_what_argparse_refuses_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and "usage: seminar" in capsys.readouterr().err


def test_the_installed_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "seminar_utils.cli", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith("seminar-utils 0.")


def raising(error):
    def run(arguments):
        raise error

    return run


def test_user_errors_are_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_progress", raising(SeminarError("expected this, got that")))
    assert cli.main(["progress"]) == 2
    assert capsys.readouterr().err == "seminar: expected this, got that\n"


def test_a_missing_package_is_one_line_and_points_to_the_doctor(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_progress", raising(ModuleNotFoundError("No module", name="tqdm")))
    assert cli.main(["progress"]) == 2
    assert capsys.readouterr().err == "seminar: tqdm is not installed: seminar doctor tells what to do\n"


def test_a_fault_of_the_course_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "run_progress", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError):
        cli.main(["progress"])


def test_ctrl_c_is_quiet(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_progress", raising(KeyboardInterrupt()))
    assert cli.main(["progress"]) == 130 and capsys.readouterr().err == "seminar: stopped\n"


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "rows.jsonl"
    store = ResultsStore(path)
    store.append("tent.batch_size", {"batch": 16}, {"accuracy": 0.5}, {"accuracy": [0.4, 0.6]}, seed=0)
    store.append("tent.batch_size", {"batch": 4}, {"accuracy": 0.25}, seed=[0, 1])
    store.append("source", {"batch": 16}, {"accuracy": float("nan")})
    return str(path)


def test_results_as_a_table(store, capsys):
    assert cli.main(["results", "--file", store]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[-1] == "3 rows"
    assert "tent.batch_size" in said[0] and "0.5000 [0.4000, 0.6000]   batch=16" in said[0]
    assert " none " in said[2]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (["experiment=tent.batch_size"], 2),
        (["params.batch=16"], 2),
        (["experiment=tent.batch_size", "params.batch=16"], 1),
        (["experiment=nothing"], 0),
        (['seed=[0,1]'], 1),
    ],
)  # fmt: skip
def test_results_where(store, capsys, where, count):
    assert cli.main(["results", "--file", store, "--json", "--where", *where]) == 0
    assert len(json.loads(capsys.readouterr().out)) == count


def test_a_condition_without_a_value_is_refused(store, capsys):
    assert cli.main(["results", "--file", store, "--where", "experiment"]) == 2
    assert "--where takes key=value" in capsys.readouterr().err


def test_pretrain_lists_recipes_and_refuses_others(capsys):
    assert cli.main(["pretrain"]) == 0
    assert "resnet_small-phantoms-s0" in capsys.readouterr().out.split()
    assert cli.main(["pretrain", "resnet_smal-phantoms-s0"]) == 2
    assert "resnet_small-phantoms-s0" in capsys.readouterr().err


def test_checkpoints_list(capsys):
    assert cli.main(["checkpoints", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 1} checkpoints"
    assert cli.main(["checkpoints", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(lines) - 1


def test_notebooks_check_tells_the_truth(monkeypatch, capsys):
    from seminar_utils.teaching import notebooks

    monkeypatch.setattr(notebooks, "lessons", lambda folder: ["01_x", "02_y"])
    monkeypatch.setattr(notebooks, "check", lambda name: [f"{name}: stale"] if name == "02_y" else [])
    assert cli.main(["notebooks", "check"]) == 1
    assert capsys.readouterr().out == "02_y: stale\n"
    assert cli.main(["notebooks", "check", "--only", "1"]) == 0
    assert capsys.readouterr().out == "notebooks check: ok\n"
