"""`make course`: selection, the table, the copies and figures it leaves, and its exit status."""

import os
import subprocess
import sys

import pytest
from lessons_for_tests import write_lesson

from seminar_utils import cli
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import course, notebooks


def test_a_good_and_a_bad_lesson(tmp_path, capsys, monkeypatch):
    folder = write_lesson(tmp_path / "notebooks", "01_good")
    write_lesson(folder, "02_bad", "\n# %%\nprint('so far')\n\n# %%\nundefined_name\n")
    monkeypatch.setattr(notebooks, "notebooks_dir", lambda: folder)
    monkeypatch.setattr(course, "runs_dir", lambda: tmp_path / "runs")
    assert cli.main(["course", "--profile", "smoke"]) == 1
    printed = capsys.readouterr()
    lines = {line.split()[0]: line for line in printed.out.splitlines() if line[:2].isdigit()}
    assert lines["01_good"].endswith("ok") and " MB" in lines["01_good"]
    assert "FAILED in code cell 2" in lines["02_bad"] and "NameError" in lines["02_bad"]
    assert "2 lessons, 1 failed" in printed.out
    assert "undefined_name" in printed.err and "NameError" in printed.err  # the cell's source and its error
    assert "1/2 01_good" in printed.err and "2/2 02_bad" in printed.err  # the progress bars
    out = tmp_path / "runs" / "course" / "smoke"
    assert str(out) in printed.out
    assert "smoke 1" in (out / "01_good.ipynb").read_text()
    assert "so far" in (out / "02_bad.ipynb").read_text()
    assert (out / "figures" / "01_good-01.png").read_bytes()[:4] == b"\x89PNG"
    assert not (folder / "01_good.ipynb").exists()  # the course's own files are left alone

    timings = out / "timings.json"
    fresh = notebooks.read_lesson(folder, "01_good")
    assert course.expected_seconds(timings, "01_good", fresh, "smoke") > 0
    assert course.expected_seconds(timings, "02_bad", fresh, "smoke") is None  # a failed run tells no time

    assert cli.main(["course", "--profile", "smoke", "--only", "1"]) == 0
    assert "1 lessons, 0 failed" in capsys.readouterr().out


def test_expected_time_falls_back_to_what_the_build_recorded(tmp_path):
    notebook = notebooks.read_text(write_lesson(tmp_path, "01_x"), "01_x")
    notebook.metadata["seminar"] = {"minutes": 2.5}
    assert course.expected_seconds(tmp_path / "none.json", "01_x", notebook, "cpu") == 150
    assert course.expected_seconds(tmp_path / "none.json", "01_x", notebook, "smoke") is None
    (tmp_path / "broken.json").write_text("[")
    assert course.expected_seconds(tmp_path / "broken.json", "01_x", notebook, "cpu") == 150


def test_select_by_number_and_name():
    names = ["00_start_here", "01_resnet", "11_tent"]
    assert notebooks.select(names, None) == notebooks.select(names, "") == names
    assert notebooks.select(names, "11") == ["11_tent"]
    assert notebooks.select(names, "1") == ["01_resnet"]
    assert notebooks.select(names, "11_tent, 0") == ["00_start_here", "11_tent"]
    with pytest.raises(SeminarError, match="'11_tnet': did you mean '11_tent'.*known: 00_start_here"):
        notebooks.select(names, "11_tnet")
    with pytest.raises(SeminarError, match="known: 00_start_here, 01_resnet, 11_tent"):
        notebooks.select(names, "12")
    with pytest.raises(SeminarError, match="there is no lesson yet"):
        notebooks.select([], None)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_cannot_be_switched_off(seconds):
    with pytest.raises(SeminarError, match="positive number of seconds"):
        course.limits_for("smoke", seconds)


def test_a_longer_cell_limit_lengthens_the_notebook_s():
    limits = course.limits_for("smoke", 5000)
    assert limits.cell == 5000 <= limits.notebook < float("inf")


def test_make_passes_profile_and_only_on(root):
    """`make -n` prints what would run; wrong names come back as one clear line and a status."""
    said = subprocess.run(
        ["make", "-n", "course", "PROFILE=smoke", "ONLY=11", "ARGS=--cell-timeout 9"],
        cwd=root, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert 'course --profile "smoke" --only "11" --cell-timeout 9' in said.stdout, said.stderr
    wrong = subprocess.run(
        [sys.executable, "-m", "seminar_utils.cli", "course", "--profile", "fast"],
        cwd=root, capture_output=True, text=True, timeout=120, env=dict(os.environ),
    )  # fmt: skip
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "seminar: unknown profile 'fast': known: cpu, gpu, smoke"


def test_make_says_which_python_is_needed(root, tmp_path):
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    said = subprocess.run(
        ["make", "setup", f"PYTHON={tmp_path / 'old'}", f"VENV={tmp_path / 'v'}"],
        cwd=root, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode != 0 and "CPython 3.11 or newer is needed" in said.stderr
    assert not (tmp_path / "v").exists()
