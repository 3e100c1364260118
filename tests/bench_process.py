"""What a benchmark's worker may be in a test: it imports nothing heavy, and dies when it is told to."""

import os
import signal
from pathlib import Path


def serve(pipe, setup):
    """Like the real one, with made-up numbers; the method "killer" kills its process (with `once`, one time)."""
    try:
        pipe.send({"ready": True})
        while True:
            cell = pipe.recv()
            once = cell.method["settings"].get("once")
            if cell.method["name"] == "killer" and not (once and Path(once).exists()):
                if once:
                    Path(once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send({"metrics": {"accuracy": 0.5}, "intervals": {}, "seconds": 0.1})
    except (EOFError, OSError):
        return


def stillborn(pipe, setup):
    """Dies before it says a word."""
    os._exit(3)
