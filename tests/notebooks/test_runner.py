"""The runner: limits, the retry, the truth in the outcome. Each test starts one or two kernels."""

import sys
import time

import nbformat
import psutil
import pytest

from seminar_utils.teaching import kernels, runner
from seminar_utils.teaching.runner import Limits, execute

QUICK = Limits(cell=60, notebook=120, start=60)


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


def kernels_of_ours():
    return [p for p in psutil.Process().children(recursive=True) if "ipykernel" in " ".join(p.cmdline())]


def test_outputs_environment_memory_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    monkeypatch.setenv("SEMINAR_DATA", "real")  # relative to where the user stands, not to notebooks/
    cells = []
    notebook = notebook_of(
        "import os, sys; print(os.environ['SEMINAR_PROFILE'], os.environ['SEMINAR_STATIC'], sys.executable)",
        "print(os.environ['SEMINAR_DATA'], os.path.dirname(os.environ['SEMINAR_PROGRESS']) != '')",
        "big = bytearray(300_000_000); big[::4096] = b'x' * len(big[::4096]); import time; time.sleep(1)",
    )
    outcome = execute(notebook, "x", tmp_path, "smoke", QUICK, cells.append)
    assert outcome.ok and cells == [1, 2, 3], outcome
    assert notebook.cells[0].outputs[0].text.split() == ["smoke", "1", sys.executable]
    assert notebook.cells[1].outputs[0].text.split() == [str(tmp_path / "real"), "True"]
    assert 300 < outcome.peak_mb < 1000 and 1 < outcome.seconds < 100
    assert 0 < outcome.cpu_seconds < outcome.seconds  # it sleeps a second, which costs no processor time
    assert kernels_of_ours() == []


def test_a_failing_cell_is_named_and_later_cells_do_not_run(tmp_path):
    notebook = notebook_of("x = 1", "print('before'); 1 / (x - 1)", "print('never')")
    outcome = execute(notebook, "x", tmp_path, "smoke", QUICK)
    assert not outcome.ok and outcome.cell == 2
    assert "ZeroDivisionError" in outcome.error and "\x1b" not in outcome.error
    assert outcome.cell_source == "print('before'); 1 / (x - 1)"
    assert notebook.cells[1].outputs[0].text == "before\n" and notebook.cells[2].outputs == []


def test_an_exception_a_cell_is_tagged_for_is_no_failure(tmp_path):
    notebook = notebook_of("raise ValueError('shown to students')", "print('goes on')")
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    assert execute(notebook, "x", tmp_path, "smoke", QUICK).ok
    assert notebook.cells[1].outputs[0].text == "goes on\n"


def test_a_cell_that_takes_too_long_is_given_up_with_its_children(tmp_path):
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    first = f"import subprocess, sys, time\nprint({child}.pid, flush=True)"
    notebook = notebook_of(first, "while True: time.sleep(0.1)")
    started = time.monotonic()
    outcome = execute(notebook, "x", tmp_path, "smoke", Limits(cell=2, notebook=60))
    assert outcome.cell == 2 and "limit of 2 s" in outcome.error
    assert time.monotonic() - started < 40
    assert not psutil.pid_exists(int(notebook.cells[0].outputs[0].text))
    assert kernels_of_ours() == []


def test_a_notebook_that_takes_too_long_is_given_up(tmp_path):
    outcome = execute(notebook_of("import time; time.sleep(99)"), "x", tmp_path, "smoke", Limits(90, notebook=4))
    assert not outcome.ok and "longer than its limit of 4 s" in outcome.error and outcome.seconds < 30
    assert kernels_of_ours() == []


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    outcome = execute(notebook_of("import os; os._exit(7)"), "x", tmp_path, "smoke", QUICK)
    assert not outcome.ok and "died" in outcome.error and outcome.cell == 1


def hanging_first(tmp_path, always=False):
    """A kernel command that sleeps at the first start (or at every one) and works afterwards."""
    marker = tmp_path / "started"
    hang = "True" if always else f"not pathlib.Path({str(marker)!r}).exists()"
    code = f"""
import pathlib, runpy, sys, time
first = {hang}
with open({str(marker)!r}, "a") as file: file.write("x")
if first: time.sleep(99)
sys.argv[0] = "ipykernel_launcher"
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""
    return marker, [sys.executable, "-c", code, "-f", "{connection_file}"]


def test_a_kernel_start_that_hangs_is_tried_once_more(tmp_path, monkeypatch):
    marker, command = hanging_first(tmp_path)
    monkeypatch.setattr(kernels, "kernel_command", lambda: command)
    outcome = execute(notebook_of("print(1)"), "x", tmp_path, "smoke", Limits(30, 60, start=10))
    assert outcome.ok, outcome
    assert marker.read_text() == "xx"


def test_a_kernel_that_never_starts_is_given_up_after_two_tries(tmp_path, monkeypatch):
    marker, command = hanging_first(tmp_path, always=True)
    monkeypatch.setattr(kernels, "kernel_command", lambda: command)
    started = time.monotonic()
    outcome = execute(notebook_of("print(1)"), "x", tmp_path, "smoke", Limits(30, 60, start=2))
    assert not outcome.ok and "did not start" in outcome.error and "2 times" in outcome.error
    assert marker.read_text() == "xx" and time.monotonic() - started < 40


def test_the_kernel_is_this_interpreter_whatever_is_registered(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert execute(notebook_of("print(1)"), "x", tmp_path, "smoke", QUICK).ok


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_has_limits(profile):
    limits = runner.LIMITS[profile]
    assert 0 < limits.start <= limits.cell <= limits.notebook < float("inf")
