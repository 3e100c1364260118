"""What a shift costs, beside a forward pass of the course's small ResNet: `python benchmarks/bench_shifts.py`.

The aim: every shift costs less than the forward pass of a batch of the same size (64 images of 28 and of 64
pixels, one thread). Milliseconds of processor time, so that other processes count little; the median of several
runs. Each shift is timed at severity 5, where kernels are widest. Ends with 1 if a shift misses the aim.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import sys
import time
from collections.abc import Callable

import torch

from seminar_utils.evaluation.shifts import SHIFTS, apply_shift
from seminar_utils.models import create_model

BATCH = 64
REPEATS = 9


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of one call, the median of several after one to warm up."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return 1000 * sorted(seconds)[REPEATS // 2]


def costs(side: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of the ResNet's forward pass on colour images, and of every shift."""
    x = torch.rand(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0))
    net = create_model("resnet_small", num_classes=2, in_chans=3).eval()
    with torch.inference_mode():
        forward = milliseconds(lambda: net(x))
        return forward, {name: milliseconds(lambda name=name: apply_shift(x, name, 5)) for name in SHIFTS}


def main() -> None:
    torch.set_num_threads(1)
    missed = []
    for side in (28, 64):
        forward, table = costs(side)
        print(f"{BATCH} images 3 x {side} x {side}: forward of resnet_small {forward:.1f} ms")
        for name, cost in sorted(table.items(), key=lambda item: -item[1]):
            print(f"  {name:15s} {cost:7.2f} ms  {cost / forward:6.1%} of the forward pass")
            missed += [f"{name} at {side}"] if cost >= forward else []
    print("all shifts cost less than the forward pass" if not missed else f"MORE than the forward pass: {missed}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
