"""For all tests: few threads, and nothing of the user's is read or written."""

import os
import tempfile
from pathlib import Path

import pytest

from seminar_utils.runtime import free_cores

# Before torch is imported: threads that share a busy core are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, free_cores())))
_scratch = tempfile.TemporaryDirectory(prefix="seminar-tests-", ignore_cleanup_errors=True)
os.environ["SEMINAR_PROGRESS"] = os.path.join(_scratch.name, "progress.json")
os.environ["SEMINAR_RESULTS"] = os.path.join(_scratch.name, "results.jsonl")
os.environ["MPLBACKEND"] = "agg"
for name in ("SEMINAR_PROFILE", "SEMINAR_STATIC", "SEMINAR_DEVICE", "SEMINAR_MIRROR"):
    os.environ.pop(name, None)
if os.environ.get("SEMINAR_DATA"):
    os.environ["SEMINAR_DATA"] = os.path.abspath(os.environ["SEMINAR_DATA"])


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def file_server(monkeypatch):
    """A web server on this machine; put what it serves into `.bodies` (see file_server.py)."""
    from file_server import serving

    monkeypatch.setenv("no_proxy", "*")
    with serving({}) as httpd:
        yield httpd
