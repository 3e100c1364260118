"""Every lesson under nbval in the smoke profile with the network cut off, and proof that both work."""

import os
import subprocess
import sys

import nbformat
import pytest
from lessons_for_tests import write_lesson
from nbval_run import NO_NETWORK, run_nbval

from seminar_utils.teaching import notebooks

COURSE = notebooks.notebooks_dir()


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("name", sorted(path.stem for path in COURSE.glob("[0-9][0-9]_*.ipynb")))
def test_lesson(name):
    """Runs every cell; the cells tagged nbval-check-output must give what is stored."""
    passed, output = run_nbval(COURSE / f"{name}.ipynb")
    assert passed, output


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = write_lesson(tmp_path_factory.mktemp("nbval"), "01_good")
    notebooks.build("01_good", folder)
    return folder / "01_good.ipynb"


def altered(lesson, tmp_path, **changes):
    notebook = nbformat.read(lesson, as_version=4)
    for number, source in changes.items():
        notebook.cells[int(number[1:])].source = source
    nbformat.write(notebook, tmp_path / "altered.ipynb")
    return tmp_path / "altered.ipynb"


def test_untagged_cells_may_differ_between_profiles(lesson):
    passed, output = run_nbval(lesson)  # cell 0 prints the profile: "cpu" is stored, "smoke" comes
    assert passed and "3 passed" in output, output


def test_a_tagged_cell_must_give_what_is_stored(lesson, tmp_path):
    passed, output = run_nbval(altered(lesson, tmp_path, c2="print('shape', (2, 3))\n6 * 8"))
    assert not passed and "48" in output and "42" in output, output


def test_nothing_outside_of_this_machine_is_reached(lesson, tmp_path):
    code = """
import urllib.request
try:
    urllib.request.urlopen("http://example.org", timeout=5)
    reached = "yes"
except OSError as error:
    reached = str(error)
assert "the tests run without a network" in reached, reached
"""
    passed, output = run_nbval(altered(lesson, tmp_path, c1=code, c2="print('shape', (2, 3))\n6 * 7"))
    assert passed, output


def test_a_notebook_that_hangs_is_given_up(lesson, tmp_path):
    passed, output = run_nbval(altered(lesson, tmp_path, c1="import time; time.sleep(99)"), limit=5)
    assert not passed and "given up after 5 s" in output


def python(code):
    env = {**os.environ, "PYTHONPATH": str(NO_NETWORK)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.gethostbyname('example.org')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c',"
        " 'import socket; socket.getaddrinfo(\"example.org\", 80)']))",
    ],
)
def test_the_cut_refuses(code):
    done = python(code)
    assert done.returncode != 0 and "the tests run without a network" in done.stderr, done.stderr


def test_the_cut_leaves_loopback_alone():
    code = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(("localhost", server.getsockname()[1]), 5)
client.sendall(b"x")
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
