"""`make lab`, headless: it serves the lesson to who has the token, to nobody else, and only on loopback."""

import json
import os
import subprocess

import psutil
import pytest
from lab_server import TOKEN, get, serving_lab
from lessons_for_tests import write_lesson

from seminar_utils import runtime
from seminar_utils.teaching import lab, notebooks

FIRST = f"notebooks/{lab.FIRST}.ipynb"


@pytest.fixture(scope="module")
def server(tmp_path_factory, root):
    """A checkout in small (the course's own settings, one lesson) with a server on it."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    folder = write_lesson(checkout / "notebooks", lab.FIRST)
    notebooks.sync(lab.FIRST, folder)
    with serving_lab(checkout) as (address, process):
        yield address, checkout, process


def test_the_first_lesson_opens_with_the_token(server):
    address, _, _ = server
    status, url, body = get(f"{address}/lab/tree/{FIRST}?token={TOKEN}")
    assert status == 200 and "/login" not in url and "JupyterLab" in body
    assert get(f"{address}/?token={TOKEN}")[1].split("?")[0].endswith(f"/lab/tree/{FIRST}")


@pytest.mark.parametrize("token", ["", "?token=wrong"])
def test_nobody_gets_in_without_it(server, token):
    address, _, _ = server
    status, url, _ = get(f"{address}/lab/tree/{FIRST}{token}")
    assert status == 403 or "/login" in url
    assert get(f"{address}/api/contents/{FIRST}{token}")[0] == 403


@pytest.mark.parametrize("age", [-3600, 3600])
def test_the_lesson_opens_whichever_file_is_newer(server, age):
    """After a git clone the two files of a pair have any order in time."""
    address, checkout, _ = server
    text = checkout / "notebooks" / "py" / f"{lab.FIRST}.py"
    text.write_text(text.read_text() + "\n# %%\n'only in the text'\n")
    notebook_time = (checkout / FIRST).stat().st_mtime
    os.utime(text, (notebook_time + age,) * 2)
    status, _, body = get(f"{address}/api/contents/{FIRST}?token={TOKEN}")
    assert status == 200
    model = json.loads(body)
    assert model["type"] == "notebook" and "A lesson" in model["content"]["cells"][0]["source"]
    assert "only in the text" not in body  # what a student edited in the notebook is never replaced


def test_it_listens_on_loopback_only(server):
    _, _, process = server
    listening = {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_an_empty_token_does_not_switch_the_check_off(monkeypatch):
    seen = {}
    monkeypatch.setenv("JUPYTER_TOKEN", "")
    monkeypatch.setattr(lab.subprocess, "call", lambda command, cwd, env: seen.update(env=env) or 0)
    assert lab.lab(8888, browser=False) == 0 and "JUPYTER_TOKEN" not in seen["env"]


def test_bad_ports_and_bare_installs_are_clear_errors(monkeypatch):
    with pytest.raises(runtime.SeminarError, match="from 1 to 65535"):
        lab.lab(0)
    monkeypatch.setattr(lab, "repository", lambda: None)
    with pytest.raises(runtime.SeminarError, match="checkout"):
        lab.lab()


def test_make_lab_passes_options_on(root):
    said = subprocess.run(
        ["make", "-n", "lab", "ARGS=--no-browser --port 9999"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "-m seminar_utils.cli lab --no-browser --port 9999" in said.stdout
