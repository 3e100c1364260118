"""What adapting costs beside plain passes of the same network: `python benchmarks/bench_adapters.py`.

The aims: BatchNorm adaptation costs at most 1.05 x one forward pass, Tent at most 1.05 x one forward and one
backward pass. The plain passes are those of the network as it was configured, with the batch's statistics and
gradients for the same parameters: what is measured is what the adapter adds. (To measure the statistics costs
something, too: the forward with the stored ones is printed beside.) Processor time of the course's small ResNet,
64 images of 32 pixels, one thread; the median over rounds of the ratio within a round, so that other processes
count little. Then the price of every method of the registry, in passes and kept memory. Ends with 1 if an aim is
missed.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import copy
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from seminar_utils.adaptation import METHODS, BatchNormAdapt, Source, Tent
from seminar_utils.adaptation.norm import affine_parameters, set_norm_policy
from seminar_utils.adaptation.registry import preparation
from seminar_utils.models import create_model
from seminar_utils.pretraining.simclr import TwoViews

BATCH = 64
REPEATS = 25
AIM = 1.05


def milliseconds(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Processor time of each, round by round; in a round all take their turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS + 2):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(1000 * (time.process_time() - start))
    return {name: found[2:] for name, found in times.items()}  # two to warm up


def plain_passes(model: torch.nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """One forward, and one forward and backward, with batch statistics and gradients where Tent has them."""
    net = copy.deepcopy(model).eval().requires_grad_(False)
    set_norm_policy(net, "batch")
    learning = copy.deepcopy(net)
    for parameter in affine_parameters(learning).values():
        parameter.requires_grad_(True)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return net(x)

    return {"forward": forward, "forward + backward": lambda: learning(x).logsumexp(1).mean().backward()}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(BATCH, 1, 32, 32)
    model = create_model("resnet_small")
    methods = {"source": Source(model), "bn": BatchNormAdapt(model), "tent": Tent(model)}
    times = milliseconds(plain_passes(model, x) | {name: (lambda m=m: m(x)) for name, m in methods.items()})
    missed = []
    for name, against in {"bn": "forward", "tent": "forward + backward"}.items():
        ratio = median(a / b for a, b in zip(times[name], times[against]))
        missed += [name] if ratio > AIM else []
        print(
            f"{name:5s} {median(times[name]):6.1f} ms, {against} {median(times[against]):6.1f} ms: {ratio:.3f} x"
        )
    print(f"(one forward with the stored statistics: {median(times['source']):.1f} ms)")
    print(f"\nPrice of a batch of {BATCH}:      forward backward (images)    kept beside the model")
    for name, build in METHODS.items():
        prepared = preparation(name)
        if prepared == "prompts":
            continue  # TPT and C-TPT tune a CLIP's prompt: another network, another price
        settings = {"views": TwoViews()} if prepared == "simclr" else {}
        method = build(create_model(f"resnet_small_{prepared}") if prepared else model, **settings)
        method = method.fit_source([x, x**2]) if method.needs_source else method
        method(x)
        c = method.cost()
        passes = f"{c['forward']:7d} {c['backward']:8d} {c['forward_images']:8d} {c['backward_images']:6d}"
        print(f"{name:24s} {passes} {c['extra_mib']:10.1f} MiB")
    print(f"both are within {AIM} x" if not missed else f"MORE than {AIM} x: {missed}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
