"""A benchmark that is killed again and again: `python bench_lives.py SPEC FOLDER KILLS`.

Everything heavy is imported once; each life is a fork of that, and ends by SIGKILL at a random moment. The disk is
slow: a row is written in three parts, so that some moments lie within a row. Prints a JSON object: how many lives
were killed, how many rows there were at each kill, and how often the last one was half. FOLDER gets whole.jsonl
(uninterrupted), killed-0.jsonl, and, should the benchmark be done before the last kill, killed-1.jsonl and so on.
"""

import json
import os
import random
import signal
import sys
import time
from functools import partialmethod
from pathlib import Path

import tqdm  # noqa: F401  before the first fork, as all that takes long

from seminar_utils.evaluation import bench
from seminar_utils.evaluation.bench_check import check_cells
from seminar_utils.evaluation.bench_spec import load_spec
from seminar_utils.evaluation.results import ResultsStore, code_commit, versions


def slowly(store: ResultsStore, line: bytes, pause: float) -> None:
    with open(store.path, "ab", buffering=0) as file:
        for part in (line[:50], line[50:700], line[700:]):
            file.write(part)
            time.sleep(pause)


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


def uninterrupted(spec, path: Path) -> tuple[float, float]:
    """Seconds until the first row is there, and from there for each row."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        bench.run_bench(spec, path, progress=False)
        os._exit(0)
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.002)
    first = time.monotonic() - started
    if os.waitpid(child, 0)[1]:
        sys.exit("the uninterrupted life ended with an error")
    return first, (time.monotonic() - started - first) / len(spec.cells)


def main() -> None:
    spec, folder, kills = load_spec(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    check_cells(list(spec.cells), spec.setup)  # models and images are loaded before the first fork
    code_commit(), versions()
    ResultsStore._write = partialmethod(slowly, pause=0.0)
    first, each = uninterrupted(spec, folder / "whole.jsonl")
    ResultsStore._write = partialmethod(slowly, pause=each / 4)
    moments, killed, halves, stores = random.Random(0), 0, [], 1
    rows = []
    while killed < kills:
        path = folder / f"killed-{stores - 1}.jsonl"
        if live(spec, path, moments.uniform(0.5 * first, first + 4 * each)):
            killed += 1
            content = path.read_bytes() if path.exists() else b""
            rows.append(content.count(b"\n"))
            halves.append(content[-1:] not in (b"\n", b""))
        else:
            stores += 1
    live(spec, folder / f"killed-{stores - 1}.jsonl", None)
    print(json.dumps({"killed": killed, "rows": rows, "halves": sum(halves), "stores": stores}))


if __name__ == "__main__":
    main()
