"""Run one notebook under nbval: own process, no network, every wait limited, one retry of a kernel that hangs."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from seminar_utils.teaching.kernels import kernel_env, kill_tree

NO_NETWORK = Path(__file__).resolve().parent / "no_network"
NO_KERNEL = ("Kernel didn't respond", "Kernel died before replying", "Kernel info reqest", "establish IOPub")


def nbval_env(scratch: Path) -> dict[str, str]:
    """The smoke profile's environment, cut off from the network; results go to a scratch file."""
    paths = [str(NO_NETWORK), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = kernel_env("smoke", scratch)
    return {**env, "PYTHONPATH": os.pathsep.join(paths), "SEMINAR_RESULTS": str(scratch / "results.jsonl")}


def nbval_command(notebook: Path, cell_timeout: float, start_timeout: float) -> list[str]:
    """pytest with nbval: cells tagged nbval-check-output are compared with what is stored, the others only run."""
    options = {"cell-timeout": cell_timeout, "kernel-startup-timeout": start_timeout}
    limits = [f"--nbval-{key}={value}" for key, value in options.items()]
    quiet = [
        "-q",
        "-ra",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(notebook.parent),
        "-c",
        os.devnull,
    ]
    return [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", *limits, *quiet, str(notebook)]


def run_nbval(notebook: Path, limit: float = 600, cell_timeout: float = 180, start_timeout: float = 60):
    """(passed, output) of one notebook. Takes at most twice `limit` seconds, whatever hangs."""
    output = ""
    for _attempt in (1, 2):
        passed, output = _once(nbval_command(notebook, cell_timeout, start_timeout), limit)
        if passed or not any(sign in output for sign in NO_KERNEL):
            break
    return passed, output


def _once(command: list[str], limit: float):
    with tempfile.TemporaryDirectory(prefix="seminar-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command, env=nbval_env(Path(scratch)), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        try:
            passed, note = process.wait(limit) == 0, ""
        except subprocess.TimeoutExpired:
            passed, note = False, f"\ngiven up after {limit:g} s"
        finally:
            if process.poll() is None:
                kill_tree(psutil.Process(process.pid))
        return passed, log.read_text(errors="replace") + note
