"""Which kernel runs a lesson, in what environment, how much memory it holds, and how it is ended."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

PATH_SETTINGS = ("SEMINAR_DATA", "SEMINAR_RESULTS", "SEMINAR_CACHE")
SHUTDOWN_SECONDS = 15


class OwnKernel(KernelSpecManager):
    """Whatever kernel is asked for, it is this interpreter's."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The only kernel the course knows."""
        return KernelSpec(argv=kernel_command(), display_name="Python 3", language="python")


def kernel_command() -> list[str]:
    """The command that starts a kernel; Jupyter fills in `{connection_file}`."""
    return make_ipkernel_cmd()


def kernel_env(profile: str, scratch: Path) -> dict[str, str]:
    """The environment of a notebook run by the course: profile set, static widgets, nothing of the user's touched.

    Folders given relative to where the user stands are made absolute, for a kernel stands in `notebooks/`.
    """
    given = {key: os.environ[key] for key in PATH_SETTINGS if os.environ.get(key)}
    paths = {key: os.path.abspath(os.path.expanduser(value)) for key, value in given.items()}
    ours = {
        "SEMINAR_PROFILE": profile,
        "SEMINAR_STATIC": "1",
        "SEMINAR_PROGRESS": str(scratch / "progress.json"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
    }
    return {**os.environ, **paths, **ours}


def family(process: psutil.Process | None) -> list[psutil.Process]:
    """A process and all its descendants that are alive."""
    try:
        return [process, *process.children(recursive=True)] if process else []
    except psutil.Error:
        return []


def memory_mb(process: psutil.Process | None) -> float:
    """Resident memory of a process and its descendants, in MB; 0 when it is gone."""
    total = 0
    for member in family(process):
        try:
            total += member.memory_info().rss
        except psutil.Error:
            pass
    return total / 1e6


def cpu_seconds(process: psutil.Process | None) -> float:
    """Processor time that a process and its living descendants have used; 0 when it is gone."""
    total = 0.0
    for member in family(process):
        try:
            total += sum(member.cpu_times()[:2])  # user and system
        except psutil.Error:
            pass
    return total


def kill_tree(process: psutil.Process | None) -> None:
    """End a process and its descendants now; returns within seconds."""
    members = family(process)
    for member in members:
        try:
            member.kill()
        except psutil.Error:
            pass
    psutil.wait_procs(members, timeout=SHUTDOWN_SECONDS)
