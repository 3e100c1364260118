"""What does adapting cost? Milliseconds and passes for an image, and the memory held at once.

The published tables count forward and backward passes because seconds depend on the machine; a clinic needs both.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..adaptation.passes import count_passes, networks_of
from ..runtime import SeminarError


class _LiveTensors(TorchDispatchMode):
    """Adds up the bytes of all tensors that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._remember(leaf.untyped_storage())
        return result

    def _remember(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:  # a view shares the storage of its base
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def peak_memory(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Most MiB that the tensors made by `call` held at once, without what was there before (weights, images).

    On CUDA the allocator's own count, workspaces of kernels included. Elsewhere the tensors are counted one by
    one, which is exact and repeatable (unlike the memory of the process) but leaves such workspaces out.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with _LiveTensors() as live:
        call()
    return live.peak / 2**20


@dataclass(frozen=True)
class Cost:
    """The price of one image, measured over `images` of them; `peak_mib` is of one batch."""

    images: int
    ms_per_image: float
    peak_mib: float
    forward_per_image: float
    backward_per_image: float

    def as_metrics(self) -> dict[str, float]:
        """As named numbers for a row of the results store."""
        return asdict(self)


def measure_cost(build: Callable[[], Callable[[Tensor], Tensor]], batches: Sequence[Tensor]) -> Cost:
    """Cost of a method over batches (B, C, H, W): median time of a batch after one warm-up batch.

    Args: build: makes a fresh method, called twice, so that counting cannot disturb the clock. With one batch
    alone the warm-up is the same batch. Raises SeminarError without a batch.
    """
    batches = list(batches)
    if not batches or any(len(x) == 0 for x in batches):
        raise SeminarError(f"the cost needs at least one batch that is not empty, got {len(batches)} batches")
    counted = build()
    with count_passes(counted) as passes:
        memory = max(peak_memory(lambda x=x: counted(x), device_of(counted)) for x in batches)
    timed = build()
    timed(batches[0])
    seconds = [_seconds(timed, x) / len(x) for x in batches[1:] or batches]
    images = sum(len(x) for x in batches)
    per_image = passes.forward_images / images, passes.backward_images / images
    return Cost(images, 1000 * statistics.median(seconds), memory, *per_image)


def device_of(method: Callable) -> torch.device:
    """Where the method computes: the device of its first parameter, the CPU when it has none."""
    parameters = (parameter for network in networks_of(method) for parameter in network.parameters())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def _seconds(method: Callable, x: Tensor) -> float:
    device = device_of(method)
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    wait()
    started = time.perf_counter()
    method(x)
    wait()
    return time.perf_counter() - started
