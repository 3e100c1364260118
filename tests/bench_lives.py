"""A benchmark that is killed again and again: `python bench_lives.py SPEC FOLDER KILLS`.

Everything heavy is imported once; each life is a fork of that, and ends by SIGKILL at a random moment. The disk is
slow: a row is written in three parts, so that some moments lie within a row. Prints a JSON object: how many lives
were killed, and how many half rows the next life found. FOLDER gets whole.jsonl (uninterrupted) and killed.jsonl.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from seminar_utils.evaluation import bench, bench_run
from seminar_utils.evaluation.bench_spec import load_spec
from seminar_utils.evaluation.results import ResultsStore, code_commit, versions


def slowly(store: ResultsStore, line: bytes) -> None:
    with open(store.path, "ab", buffering=0) as file:
        for part in (line[:50], line[50:700], line[700:]):
            file.write(part)
            time.sleep(0.004)


def live(spec, path: Path, seconds: float | None) -> bool:
    """One life, ended after `seconds`; True when the kill met it alive."""
    child = os.fork()
    if child == 0:
        try:
            bench.run_bench(spec, path, progress=False)
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    ended = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(ended) and os.WEXITSTATUS(ended):
        sys.exit("a life ended with an error")
    return os.WIFSIGNALED(ended)


def main() -> None:
    spec, folder, kills = load_spec(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    bench_run.check_cells(list(spec.cells), spec.setup)  # models and images are loaded before the first fork
    code_commit(), versions()
    ResultsStore._write = slowly
    started = time.monotonic()
    live(spec, folder / "whole.jsonl", None)
    whole = time.monotonic() - started
    moments, killed, halves = random.Random(0), 0, 0
    path = folder / "killed.jsonl"
    for _ in range(kills):
        killed += live(spec, path, moments.uniform(0, whole / (0.75 * kills)))
        halves += path.exists() and path.read_bytes()[-1:] not in (b"\n", b"")
    live(spec, path, None)
    print(json.dumps({"killed": killed, "halves": halves, "seconds": whole}))


if __name__ == "__main__":
    main()
