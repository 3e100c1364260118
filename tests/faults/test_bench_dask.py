"""A real Dask scheduler and two real workers on this machine, started by the ordinary commands."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from test_bench_killed import TEXT, by_cell, environment, rows_of, until

from seminar_utils.evaluation import bench_backends
from seminar_utils.evaluation.bench import run_bench
from seminar_utils.evaluation.bench_spec import load_spec
from seminar_utils.runtime import SeminarError

pytest.importorskip("distributed", reason="dask is an extra: pip install 'seminar-utils[dask]'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler, and a function that starts its two workers."""
    folder = tmp_path_factory.mktemp("dask")
    quiet = {"env": {**environment(), "no_proxy": "*"}, "cwd": folder, "stdout": subprocess.DEVNULL}
    quiet["stderr"] = subprocess.DEVNULL
    dask = [sys.executable, "-m", "dask"]
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    file = folder / "scheduler.json"
    started = [
        subprocess.Popen([*dask, "scheduler", *here, "--port", "0", "--scheduler-file", str(file)], **quiet)
    ]

    def workers():
        how = ["--nthreads", "1", "--nworkers", "2", "--local-directory", str(folder)]
        started.append(subprocess.Popen([*dask, "worker", *here, "--scheduler-file", str(file), *how], **quiet))

    try:
        until(lambda: file.exists() and file.read_text().strip().endswith("}"), 60)
        yield json.loads(file.read_text())["address"], workers
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def test_a_dask_cluster_says_the_same_as_one_process(cluster, tmp_path, monkeypatch):
    url, start_workers = cluster
    (tmp_path / "tiny.toml").write_text(TEXT)
    spec = load_spec(tmp_path / "tiny.toml")
    with pytest.raises(SeminarError, match=f"at {url} has no workers: dask worker"):
        list(bench_backends.dask_cluster(spec.cells, spec.setup, url, patience=1))
    start_workers()
    assert run_bench(spec, tmp_path / "dask.jsonl", scheduler=url, progress=False).done == 24
    assert run_bench(spec, tmp_path / "one.jsonl", progress=False).done == 24
    assert by_cell(rows_of(tmp_path / "dask.jsonl")) == by_cell(rows_of(tmp_path / "one.jsonl"))

    once = tmp_path / "died"
    (tmp_path / "deadly.toml").write_text(
        TEXT.replace('"tiny"', '"deadly"\nimports = ["bench_methods"]')
        .replace('"bn", "tent"', f'"killer", {{name = "killer", once = "{once}"}}, "broken"')
        .replace("seeds = [0, 1]", "seeds = [0]")
        .replace('["none", "blur"]\nseverities = [3]', '["none"]')
    )
    deadly = load_spec(tmp_path / "deadly.toml")
    chosen = [cell for cell in deadly.cells if cell.batch_size == 4]
    summary = run_bench(
        replace(deadly, cells=tuple(chosen)), tmp_path / "rows.jsonl", scheduler=url, progress=False
    )
    errors = {row["params"]["method"]: row["error"] for row in summary.failures}
    assert errors.pop("killer") == "its worker died 2 times at this cell"
    assert "out of order" in errors.pop("broken") and not errors and summary.done == 2
    assert os.path.exists(once)
