"""Execute one notebook in a fresh kernel, with a limit on every wait, and measure its time and memory.

A kernel start has been seen to hang for ever, so a start that fails or takes too long is tried once more;
a cell, a whole notebook and the shutdown have limits too. The kernel is always this very interpreter,
whatever kernels are registered on the machine.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from .kernels import SHUTDOWN_SECONDS, OwnKernel, cpu_seconds, kernel_env, kill_tree, memory_mb

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
POLL_SECONDS = 0.2
ATTEMPTS = 2


@dataclass(frozen=True)
class Limits:
    """Seconds after which a kernel start, one cell and a whole notebook are given up."""

    cell: float
    notebook: float
    start: float = 60


LIMITS = {
    "smoke": Limits(cell=180, notebook=600),
    "cpu": Limits(cell=900, notebook=3600),
    "gpu": Limits(cell=7200, notebook=6 * 3600),
}


@dataclass
class Outcome:
    """What came of one notebook: `error` is empty when every cell ran; `cell_source` is the one that failed.

    `seconds` on the clock, `cpu_seconds` of the kernel and its children on all cores.
    """

    name: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    error: str = ""
    cell: int = 0
    cell_source: str = ""
    cpu_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every cell ran."""
        return not self.error


class KernelStartError(RuntimeError):
    """The kernel did not come up."""


def execute(
    notebook: nbformat.NotebookNode,
    name: str,
    folder: Path,
    profile: str = "cpu",
    limits: Limits | None = None,
    on_cell: Callable[[int], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Run all cells of `notebook` in place, standing in `folder`; outputs land in the notebook even on failure.

    Args: on_cell(k): called before the k-th code cell (from 1) runs; on_tick(): called several times a second.
    Never raises for what a cell does: see the Outcome. A kernel that fails to start is tried twice.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with tempfile.TemporaryDirectory(prefix="seminar-", ignore_cleanup_errors=True) as scratch:
            run = _Run(notebook, folder, Path(scratch), profile, limits or LIMITS[profile], on_cell)
            run.watch(on_tick)
        outcome = run.outcome(name, attempt)
        if outcome.ok or outcome.cell:  # once a cell has begun, what happens is the notebook's own doing
            break
    return outcome


class _Run:
    """One attempt: a thread talks to the kernel, the caller's thread watches memory and the clock."""

    def __init__(self, notebook, folder, scratch, profile, limits, on_cell):
        self.notebook, self.folder, self.limits, self.on_cell = notebook, folder, limits, on_cell
        self.env, self.log = kernel_env(profile, scratch), scratch / "kernel.log"
        self.manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=OwnKernel())
        self.kernel: psutil.Process | None = None
        self.problem: BaseException | None = None
        self.last_words = ""
        self.too_long = False
        self.cell, self.cell_index = 0, 0
        self.seconds, self.peak, self.cpu = 0.0, 0.0, 0.0

    def watch(self, on_tick: Callable[[], None] | None) -> None:
        """Run the notebook to its end or its limit; on Ctrl-C stop the kernel first."""
        started = time.monotonic()
        thread = threading.Thread(target=self._talk, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not self.too_long:
                thread.join(POLL_SECONDS)
                self.seconds = time.monotonic() - started
                self.peak = max(self.peak, memory_mb(self.kernel))
                self.cpu = max(self.cpu, cpu_seconds(self.kernel))
                self.too_long = thread.is_alive() and self.seconds > self.limits.notebook
                if on_tick:
                    on_tick()
        finally:
            kill_tree(self.kernel)
            thread.join(2 * SHUTDOWN_SECONDS)
            self.last_words = self.log.read_text(errors="replace")[-2000:].strip() if self.log.exists() else ""

    def _talk(self) -> None:
        try:
            asyncio.run(self._start_and_execute())
        except BaseException as error:
            self.problem = error

    async def _start_and_execute(self) -> None:
        client = NotebookClient(
            self.notebook,
            km=self.manager,
            timeout=self.limits.cell,
            startup_timeout=self.limits.start,
            record_timing=False,
            store_widget_state=False,
            on_cell_execute=self._cell_begins,
        )
        try:
            await self._start(client)
            await client.async_execute()
        finally:
            await self._shut_down(client)

    async def _start(self, client: NotebookClient) -> None:
        async def start():
            with open(self.log, "wb") as log:  # what the process itself complains of; cells' stderr goes elsewhere
                await client.async_start_new_kernel(env=self.env, cwd=str(self.folder), stdout=log, stderr=log)
            self.kernel = psutil.Process(self.manager.provisioner.pid)
            await client.async_start_new_kernel_client()

        try:
            await asyncio.wait_for(start(), self.limits.start + SHUTDOWN_SECONDS)
        except Exception as error:
            raise KernelStartError(f"the kernel did not start within {self.limits.start:g} s: {error}") from error

    async def _shut_down(self, client: NotebookClient) -> None:
        kill_tree(self.kernel)
        try:
            if client.kc is not None:
                client.kc.stop_channels()
            await asyncio.wait_for(self.manager.shutdown_kernel(now=True), SHUTDOWN_SECONDS)
        except Exception:  # the process is gone already; nothing of it is needed any more
            pass

    def _cell_begins(self, cell, cell_index: int) -> None:
        self.cell += 1
        self.cell_index = cell_index
        if self.on_cell:
            self.on_cell(self.cell)

    @property
    def ended_well(self) -> bool:
        """Whether every cell ran."""
        return self.problem is None and not self.too_long

    def outcome(self, name: str, attempt: int) -> Outcome:
        """What the caller gets to know."""
        if self.ended_well:
            return Outcome(name, self.seconds, self.peak, cell=self.cell, cpu_seconds=self.cpu)
        source = self.notebook.cells[self.cell_index].source if self.cell else ""
        return Outcome(name, self.seconds, self.peak, self._explain(attempt), self.cell, source, self.cpu)

    def _explain(self, attempt: int) -> str:
        problem = self.problem
        if self.too_long:
            return f"the notebook took longer than its limit of {self.limits.notebook:g} s"
        if isinstance(problem, KernelStartError):
            return f"{problem} (tried {attempt} times)\n{self.last_words}".strip()
        if isinstance(problem, CellTimeoutError):
            return f"the cell took longer than its limit of {self.limits.cell:g} s (--cell-timeout)"
        if isinstance(problem, DeadKernelError):
            return f"the kernel died (out of memory?)\n{self.last_words}".strip()
        if isinstance(problem, CellExecutionError):
            return ANSI.sub("", problem.traceback).strip()
        return f"{type(problem).__name__}: {problem}"
