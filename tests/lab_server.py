"""JupyterLab as `make lab` starts it, on a free port of this machine, for the time of a test."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from seminar_utils.teaching import lab
from seminar_utils.teaching.kernels import kill_tree

TOKEN = "a-token-for-this-test"
START_SECONDS = 90


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url: str) -> tuple[int, str, str]:
    """(status, final address, body), redirections followed."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
            return answer.status, answer.url, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, url, ""


@contextmanager
def serving_lab(checkout: Path, *options: str, **env: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server on `checkout`; it and its kernels end with the block.

    options: more of JupyterLab's own; env: more of the environment. The user's settings are not read.
    """
    port = free_port()
    folders = {name: str(checkout / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": str(checkout / "workspaces"), "IPYTHONDIR": str(checkout / "ipython")}
    command = [*lab.lab_command(checkout, port, browser=False), *options]
    with open(checkout / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env={**os.environ, "JUPYTER_TOKEN": TOKEN, **folders, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    family = psutil.Process(process.pid)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/api", process, checkout / "log")
        yield f"http://127.0.0.1:{port}", family
    finally:
        kill_tree(family)


def _wait_until_it_answers(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            if get(url)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.3)
