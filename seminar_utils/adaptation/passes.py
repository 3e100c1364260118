"""Counting what a method asks of its networks: passes forward and backward, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..runtime import SeminarError


@dataclass
class Passes:
    """Passes through the networks of a method: calls, and the images in them.

    `backward_images` counts the rows that a gradient reached: a method that trusts half of a batch pays for half.
    """

    forward: int = 0
    backward: int = 0
    forward_images: int = 0
    backward_images: int = 0

    def saw_forward(self, module: nn.Module, inputs: tuple, output: object) -> None:
        """Forward hook: count the pass, and watch its output for a gradient coming back."""
        first = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        self.forward += 1
        self.forward_images += len(first) if first is not None and first.ndim else 0
        if first is not None and first.requires_grad:
            first.register_hook(self.saw_backward)

    def saw_backward(self, gradient: Tensor) -> None:
        """Tensor hook on the output of a network; it changes nothing."""
        self.backward += 1
        self.backward_images += int((gradient.flatten(1) != 0).any(dim=1).sum()) if gradient.ndim > 1 else 0


def networks_of(method: Callable) -> list[nn.Module]:
    """The networks a method calls: itself, or the modules it holds (student, teacher ...), none inside another."""
    found = [method] if isinstance(method, nn.Module) else []
    found += [value for value in getattr(method, "__dict__", {}).values() if isinstance(value, nn.Module)]
    inner = {id(part) for network in found for part in list(network.modules())[1:]}
    return list({id(network): network for network in found if id(network) not in inner}.values())


@contextmanager
def count_passes(method: Callable) -> Iterator[Passes]:
    """Count passes while the block runs: `with count_passes(tent) as passes: tent(x)`.

    A pass is one call of a network that the method holds; a call of a part of it (`model.embed`) is not seen.
    Raises SeminarError when the method holds no network.
    """
    networks = networks_of(method)
    if not networks:
        raise SeminarError(f"{type(method).__name__} holds no network whose passes could be counted")
    passes = Passes()
    handles = [network.register_forward_hook(passes.saw_forward) for network in networks]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def kept_bytes(method: object, network: nn.Module) -> int:
    """Bytes of all tensors that a method holds beside `network`: snapshot, moments, teacher, queue.

    A tensor that shares its storage with the network, or with another one, is counted once or not at all.
    """
    seen = {value.untyped_storage()._cdata for value in network.state_dict(keep_vars=True).values()}
    total, left = 0, list(vars(method).values())
    while left:
        value = left.pop()
        if isinstance(value, nn.Module):
            left += [*value.parameters(), *value.buffers()]
        elif isinstance(value, torch.optim.Optimizer):
            left += list(value.state.values())
        elif isinstance(value, Tensor):
            storage = value.untyped_storage()
            total += 0 if storage._cdata in seen else storage.nbytes()
            seen.add(storage._cdata)
        elif isinstance(value, dict | list | tuple):
            left += list(value.values() if isinstance(value, dict) else value)
    return total
