"""What goes wrong in a benchmark: faulty cells, workers that die, spoilt stores, a scheduler that is not there."""

import json
import subprocess
import sys
import time

import bench_process
import pytest

from seminar_utils import cli
from seminar_utils.evaluation import bench_backends
from seminar_utils.evaluation.bench import run_bench, status
from seminar_utils.evaluation.bench_spec import load_spec
from seminar_utils.evaluation.bench_store import lock, recover
from seminar_utils.runtime import SeminarError

TEXT = """
name = "faulty"
images = 8
resamples = 5
imports = ["bench_methods"]
[[grid]]
methods = [{methods}]
models = ["resnet_small-phantoms"]
data = ["phantoms"]
batch_sizes = [4]
seeds = [0, 1]
"""


@pytest.fixture
def bench(tmp_path):
    """A function that writes a spec with these methods; and the path of the rows."""

    def spec_of(*methods):
        path = tmp_path / "faulty.toml"
        path.write_text(TEXT.format(methods=", ".join(methods)))
        return load_spec(path)

    spec_of.rows = tmp_path / "rows.jsonl"
    return spec_of


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_failing_cell_is_a_row_and_the_run_goes_on(bench, tmp_path):
    mended = tmp_path / "mended"
    spec = bench('"source"', '"bn"', f'{{name = "broken", mended = "{mended}"}}')
    summary = run_bench(spec, bench.rows, progress=False)
    assert (summary.cells, summary.done, len(summary.failures), summary.missing) == (6, 4, 2, 0)
    failed = [row for row in rows_of(bench.rows) if row.get("error")]
    assert all(row["metrics"] == {} and "RuntimeError: out of order" in row["error"] for row in failed)
    assert "2 x RuntimeError: out of order" in str(summary)
    before = bench.rows.read_bytes()
    run_bench(spec, bench.rows, progress=False)
    assert bench.rows.read_bytes() == before  # a failure is a result; it is not tried again unasked
    mended.touch()
    assert run_bench(spec, bench.rows, retry_failed=True, progress=False).done == 6
    assert bench.rows.read_bytes().startswith(before) and len(rows_of(bench.rows)) == 8


def test_a_worker_that_dies_is_replaced_and_its_cell_tried_once_more(bench, tmp_path, monkeypatch):
    """Real processes and a real kill; what computes in them is a stand-in that imports nothing (bench_process)."""
    monkeypatch.setattr("seminar_utils.evaluation.bench_backends._serve", bench_process.serve)
    spec = bench('"source"', '"bn"', '"killer"', f'{{name = "killer", once = "{tmp_path / "died"}"}}')
    summary = run_bench(spec, bench.rows, workers=2, progress=False, check=False)
    assert (summary.done, len(summary.failures), summary.missing) == (6, 2, 0)
    told = "its worker died 2 times at this cell (the last exit code is -9)"
    assert [row["error"] for row in summary.failures] == [told, told]
    rows = rows_of(bench.rows)
    assert len(rows) == len({row["cell"] for row in rows}) == 8
    attempts = {True: 0, False: 0}
    for row in rows:
        attempts["once" in row["params"]["settings"]] += row["attempts"]
    assert attempts == {True: 2 + 1, False: 4 * 1 + 2 * 2}  # of two seeds the first one died once


def test_workers_that_cannot_start_are_told(bench, monkeypatch):
    monkeypatch.setattr("seminar_utils.evaluation.bench_backends._serve", bench_process.stillborn)
    with pytest.raises(SeminarError, match="die before they can take a cell .exit code 3"):
        run_bench(bench('"source"'), bench.rows, workers=2, progress=False, check=False)
    assert not bench.rows.exists()


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_half_written_last_line_is_cut_off_and_told(bench, capsys, cut):
    spec = bench('"source"')
    run_bench(spec, bench.rows, progress=False)
    whole = bench.rows.read_bytes()
    first = whole.index(b"\n") + 1
    bench.rows.write_bytes(whole[: first + cut])
    assert status(spec, bench.rows).done == 1  # looking changes nothing
    assert bench.rows.read_bytes() == whole[: first + cut]
    summary = run_bench(spec, bench.rows, progress=False)
    assert f"half-written last line ({cut} bytes) was cut off" in capsys.readouterr().err
    assert summary.done == 2 and [row["cell"] for row in rows_of(bench.rows)] == [cell.key for cell in spec.cells]


def test_a_last_row_without_its_end_of_line_is_kept(bench):
    spec = bench('"source"')
    run_bench(spec, bench.rows, limit=1, progress=False)
    whole = bench.rows.read_bytes()
    bench.rows.write_bytes(whole[:-1])
    assert "completed" in recover(bench.rows) and bench.rows.read_bytes() == whole and recover(bench.rows) is None


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [("bench", 0, "bench version .*'0'.*this is 1"), ("schema", 9, "store version .*'9'")],
)
def test_a_store_of_another_version_is_refused_and_left_alone(bench, field, value, told):
    spec = bench('"source"')
    run_bench(spec, bench.rows, limit=1, progress=False)
    row = rows_of(bench.rows)[0] | {field: value}
    bench.rows.write_text(json.dumps(row) + "\n")
    before = bench.rows.read_bytes()
    for call in (run_bench, status):
        with pytest.raises(SeminarError, match=f"another version of the course.*{told}.*--output"):
            call(spec, bench.rows)
    assert bench.rows.read_bytes() == before


def test_a_damaged_middle_is_no_half_written_end(bench):
    spec = bench('"source"')
    run_bench(spec, bench.rows, progress=False)
    lines = bench.rows.read_text().splitlines()
    bench.rows.write_text(lines[0][:50] + "\n" + lines[1] + "\n")
    with pytest.raises(SeminarError, match="line 1 is no row, and it is not the last"):
        run_bench(spec, bench.rows, progress=False)


def test_rows_of_two_versions_of_the_code_are_told(bench):
    spec = bench('"source"')
    run_bench(spec, bench.rows, progress=False)
    rows = rows_of(bench.rows)
    rows[0]["commit"] = "another"
    bench.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "2 versions of the code (commit" in str(status(spec, bench.rows))


def test_two_runs_on_one_store_are_refused(bench):
    spec = bench('"source"')
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom seminar_utils.evaluation.bench_store import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(bench.rows)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(SeminarError, match=f"written by another run .process {other.pid} on "):
            run_bench(spec, bench.rows, progress=False)
        other.kill()
    assert run_bench(spec, bench.rows, progress=False).done == 2  # the lock died with its holder


def test_a_store_that_cannot_be_written_is_named(bench, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SeminarError, match="can't be written"), lock(tmp_path / "file" / "rows.jsonl"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(SeminarError, match="can't be written"), lock(tmp_path / "folder"):
        pass


def test_no_scheduler_is_told_within_seconds(bench, monkeypatch):
    pytest.importorskip("distributed", reason="dask is an extra: pip install 'seminar-utils[dask]'")
    assert bench_backends.ANSWER <= 10
    monkeypatch.setattr(bench_backends, "ANSWER", 1)
    spec = bench('"source"')
    started = time.monotonic()
    with pytest.raises(SeminarError, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        run_bench(spec, bench.rows, scheduler="tcp://127.0.0.1:9", progress=False, check=False)
    assert time.monotonic() - started < 20 and not bench.rows.exists()
    with pytest.raises(SeminarError, match="no Dask scheduler answers at 'nonsense'"):
        run_bench(spec, bench.rows, scheduler="nonsense", progress=False, check=False)


def test_without_dask_the_extra_is_named(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SeminarError, match=r"pip install 'seminar-utils\[dask\]'"):
        run_bench(bench('"source"'), bench.rows, scheduler="tcp://127.0.0.1:9", progress=False, check=False)


@pytest.mark.parametrize("how", [{"workers": -1}, {"workers": 2, "scheduler": "tcp://h:1"}])
def test_a_backend_that_makes_no_sense(bench, how):
    with pytest.raises(SeminarError, match="workers"):
        run_bench(bench('"source"'), bench.rows, **how)


def test_the_command_tells_what_is_wrong_and_what_failed(bench, tmp_path, capsys):
    bench('"source"', '"broken"')
    spec, output = str(tmp_path / "faulty.toml"), ["--output", str(bench.rows)]
    assert cli.main(["bench", "run", spec, *output, "--dry-run"]) == 0
    assert "4 cells, 4 to do\n" in capsys.readouterr().out and not bench.rows.exists()
    assert cli.main(["bench", "run", spec, *output, "--limit-cells", "3"]) == 1
    said = capsys.readouterr()
    assert "4 cells: " in said.out and "1 to do" in said.out and "3/3" in said.err
    assert cli.main(["bench", "run", spec, *output, "--limit-cells", "0"]) == 2
    assert cli.main(["bench", "run", str(tmp_path / "no.toml")]) == 2
    assert "no.toml can't be read" in capsys.readouterr().err


def test_nothing_to_do_is_no_work(bench, monkeypatch):
    spec = bench('"source"')
    run_bench(spec, bench.rows, progress=False)
    monkeypatch.setattr("seminar_utils.evaluation.bench_run.run_cell", None)
    assert run_bench(spec, bench.rows, progress=False).done == 2
