"""How many phantoms one core draws in a second: `python benchmarks/phantoms.py [number]`.

The aim is 2,000 images/s. The process keeps to one thread and, where the system allows, to one core.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import sys
import time

from seminar_utils.data.phantoms import generate, scanner

SETS = {"A": {"A": 1.0}, "C at 0.7": {"C": 0.7}, "A and B mixed": {"A": 1.0, "B": 1.0}}


def rate(scanners: dict[str, float], count: int, repeats: int = 3) -> float:
    """Images per CPU second (other processes do not count), the median of `repeats` runs of `count` images."""
    devices = {name: scanner(name, strength) for name, strength in scanners.items()}
    seconds = []
    for seed in range(repeats):
        start = time.process_time()
        generate(count, devices, seed)
        seconds.append(time.process_time() - start)
    return count / sorted(seconds)[repeats // 2]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for title, scanners in SETS.items():
        print(f"scanner {title:14s} {rate(scanners, count):7.0f} images/s on one core ({count} images)")


if __name__ == "__main__":
    main()
