"""kill -9 at any moment, any number of times: what is in the store at the end is what would have been there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from seminar_utils.evaluation.bench import run_bench
from seminar_utils.evaluation.bench_spec import load_spec

TESTS = Path(__file__).resolve().parent.parent
OF_THE_CLOCK = ("id", "time", "seconds", "fit_seconds", "host")
TEXT = """
name = "tiny"
images = 8
resamples = 10
[[grid]]
methods = ["source", "bn", "tent"]
models = ["resnet_small-phantoms"]
data = [{ name = "phantoms", scanner = "C" }]
shifts = ["none", "blur"]
severities = [3]
batch_sizes = [4, 8]
seeds = [0, 1]
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT)
    return tmp_path / "tiny.toml"


def rows_of(path):
    """The rows without what the clock says, as they were written."""
    rows = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row["metrics"].pop("ms_per_image")
        rows.append({key: value for key, value in row.items() if key not in OF_THE_CLOCK})
    return rows


def by_cell(rows):
    found = {row["cell"]: row for row in rows}
    assert len(found) == len(rows), "a cell came twice"
    return found


def environment():
    return {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the lives are forks, which Windows does not have")
def test_twenty_kills_change_nothing(spec, tmp_path):
    command = [sys.executable, str(TESTS / "bench_lives.py"), str(spec), str(tmp_path), "20"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == 20, told  # each met a life with work left
    assert len(set(told["rows"])) >= 5, told  # and they fell into different places
    assert (
        0 < done.stderr.count("half-written") <= told["halves"]
    )  # some fell within a row, and a next life said so
    whole = rows_of(tmp_path / "whole.jsonl")
    assert len(whole) == len(load_spec(spec).cells) == 24
    for number in range(told["stores"]):
        assert rows_of(tmp_path / f"killed-{number}.jsonl") == whole


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 on Windows")
def test_two_processes_killed_and_resumed_say_the_same_as_one(spec, tmp_path):
    path, alone = tmp_path / "two.jsonl", tmp_path / "one.jsonl"
    command = [sys.executable, "-m", "seminar_utils.cli", "bench", "run", str(spec), "--output", str(path)]
    with subprocess.Popen([*command, "--workers", "2"], env=environment(), stderr=subprocess.DEVNULL) as parent:
        until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 3, 120)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert len(workers) >= 2
    until(lambda: not any(map(alive, workers)), 60)  # nobody is left who would go on computing
    assert path.read_bytes().count(b"\n") < 24
    again = subprocess.run(
        [*command, "--workers", "2"], env=environment(), capture_output=True, text=True, timeout=200
    )
    assert again.returncode == 0 and "24 cells: 24 done, 0 failed, 0 to do" in again.stdout, again.stderr
    assert run_bench(load_spec(spec), alone, progress=False).done == 24
    assert by_cell(rows_of(path)) == by_cell(rows_of(alone))


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
