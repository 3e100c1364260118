"""`make lab`: JupyterLab on the first lesson, reachable from this machine only, and only with a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..runtime import SeminarError, repository

FIRST = "00_start_here"


def lab_command(root: Path, port: int, browser: bool) -> list[str]:
    """The command line: loopback address, Jupyter's own fresh token, the first lesson open."""
    lesson = root / "notebooks" / f"{FIRST}.ipynb"
    start = f"/lab/tree/notebooks/{FIRST}.ipynb" if lesson.exists() else "/lab"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": str(port),
        "ServerApp.root_dir": str(root),
        "LabApp.default_url": start,
        "ServerApp.open_browser": str(browser),
        "ServerApp.allow_remote_access": "False",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.news_url": "None",
    }
    root_user = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        *root_user,
        *(f"--{key}={value}" for key, value in options.items()),
    ]


def lab(port: int = 8888, browser: bool = True) -> int:
    """Serve until Ctrl-C; returns the server's status. Raises SeminarError outside of a checkout.

    The kernel is this environment's even where the user has registered another one of the same name.
    """
    root = repository()
    if root is None:
        raise SeminarError("the course's notebooks/ folder was not found: work in a checkout, pip install -e .")
    if not 1 <= port <= 65535:
        raise SeminarError(f"a port is a number from 1 to 65535, got {port}")
    env = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    if not os.environ.get("JUPYTER_TOKEN"):
        env.pop("JUPYTER_TOKEN", None)  # an empty one would switch the token off
    print("The address to open is printed below, with its token; Ctrl-C twice stops the server.", flush=True)
    return subprocess.call(lab_command(root, port, browser), cwd=root, env=env)
