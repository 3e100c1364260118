"""What the benchmark's engine costs, beside the work itself: `python benchmarks/bench_engine.py [AIM ...]`.

The aims:
* overhead: checking, streams, metrics, intervals and storing cost at most 5% over a bare loop of the methods;
* rows: a store of 100,000 rows is loaded and made a table in less than 2 s;
* workers: two local workers are at least 1.7 times as fast as one, on two free cores.

The first is measured in processor time, so that other processes count little. The others are times on the wall and
mean something on a quiet machine only: the load before each is printed; the best of several runs counts. That a
shift costs less than a forward pass is measured by bench_shifts.py. Ends with 1 if an aim is missed.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from seminar_utils.adaptation import create_method
from seminar_utils.checkpoints import load_checkpoint
from seminar_utils.data import load
from seminar_utils.evaluation import bench_run
from seminar_utils.evaluation.bench import run_bench
from seminar_utils.evaluation.bench_spec import Spec, parse_spec
from seminar_utils.evaluation.bench_store import read_store
from seminar_utils.evaluation.bench_table import bench_table
from seminar_utils.evaluation.metrics import accuracy
from seminar_utils.evaluation.shifts import SHIFTS, apply_shift
from seminar_utils.evaluation.streams import run_stream, stream

METHODS = ("source", "bn", "tent")
IMAGES, BATCH, REPEATS = 500, 64, 3
ROWS = 100_000


def spec(shifts: list[str], severities: list[int], seeds: list[int]) -> Spec:
    grid = {"methods": list(METHODS), "models": ["resnet_small"], "data": [{"name": "phantoms", "scanner": "C"}]}
    grid |= {"shifts": shifts, "severities": severities, "batch_sizes": [BATCH], "seeds": seeds}
    return parse_spec({"name": "engine", "images": IMAGES, "grid": [grid]})


def bare_loop(shifts: list[str], severities: list[int], seeds: list[int]) -> list[float]:
    """What one would write without an engine: load, shift, run, count what is right."""
    found = []
    for seed in seeds:
        model = load_checkpoint(f"resnet_small-phantoms-s{seed}")
        x, labels = load("phantoms", "test", n=IMAGES, scanner="C").torch(32)
        for shift, severity in itertools.product(shifts, severities):
            shifted = apply_shift(x, shift, severity, seed)
            for method in METHODS:
                batches = stream(shifted, labels, BATCH, "iid", seed)
                result = run_stream(create_method(method, model), batches)
                found.append(accuracy(result.labels, result.predictions))
    return found


def processor_seconds(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def overhead() -> bool:
    conditions = (["blur", "gamma"], [1, 3, 5], [0, 1])
    todo = spec(*conditions)

    def engine() -> None:
        for kept in vars(bench_run).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()
        with tempfile.TemporaryDirectory() as folder:
            assert run_bench(todo, Path(folder) / "rows.jsonl", progress=False).done == len(todo.cells)

    bare_loop(["blur"], [1], [0])  # to warm up
    pairs = [
        (processor_seconds(lambda: bare_loop(*conditions)), processor_seconds(engine)) for _ in range(REPEATS)
    ]
    bare, whole = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    share = whole / bare - 1
    times = f"bare loop {bare:.2f} s, engine {whole:.2f} s of processor time"
    print(f"overhead: {len(todo.cells)} cells, {times}: {share:+.1%}")
    return share <= 0.05


def rows() -> bool:
    """A store as large as a year of benchmarks, with rows as the engine writes them."""
    todo = spec(["blur"], [1], [0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        run_bench(todo, path, limit=1, progress=False)
        row = json.loads(path.read_text())
        shapes = itertools.product(range(20), SHIFTS, range(1, 6), (1, 8, 64))
        with open(path, "w") as file:
            for number, (method, shift, severity, batch, seed) in zip(range(ROWS), _many(shapes)):
                row["params"] |= {
                    "method": f"m{method}",
                    "shift": shift,
                    "severity": severity,
                    "batch_size": batch,
                }
                row |= {"cell": f"{number:016x}", "seed": seed, "id": f"{number:012x}"}
                row["metrics"]["balanced_accuracy"] = number % 997 / 997
                file.write(json.dumps(row) + "\n")
        megabytes, seconds = path.stat().st_size / 1e6, []
        for _ in range(REPEATS):
            started = time.perf_counter(), time.process_time()
            table = bench_table(read_store(path, "bench.engine"))
            ended = time.perf_counter(), time.process_time()
            seconds.append([end - start for start, end in zip(started, ended)])
    wall, processor = map(min, zip(*seconds))
    print(f"rows: {ROWS:,} rows ({megabytes:.0f} MB) loaded and made {len(table.values)} entries in {wall:.2f} s "
          f"({processor:.2f} s of processor time)")  # fmt: skip
    return wall < 2


def _many(shapes):
    """Each condition with seeds 0, 1, 2 ... as often as it takes to fill the store."""
    conditions = list(shapes)
    for seed in itertools.count():
        for condition in conditions:
            yield (*condition, seed)


def workers() -> bool:
    todo = spec(["blur", "gamma", "contrast", "exposure"], [1, 3, 5], [0, 1, 2])
    best = {1: float("inf"), 2: float("inf")}
    for count in (1, 2) * 2:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            run_bench(todo, Path(folder) / "rows.jsonl", workers=count, progress=False)
            best[count] = min(best[count], time.perf_counter() - started)
    gain = best[1] / best[2]
    print(
        f"workers: {len(todo.cells)} cells with one {best[1]:.1f} s, with two {best[2]:.1f} s (their start "
        f"included): {gain:.2f} times as fast"
    )
    return gain >= 1.7


AIMS = {"overhead": overhead, "rows": rows, "workers": workers}


def main() -> None:
    torch.set_num_threads(1)
    unknown = set(sys.argv[1:]) - set(AIMS)
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(AIMS)}")
    missed = []
    for name in sys.argv[1:] or AIMS:
        print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
        missed += [] if AIMS[name]() else [name]
    print("all aims are met" if not missed else f"MISSED: {', '.join(missed)}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
