"""Random numbers for a batch of images, in which every image has its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class Draws:
    """The random numbers of one shift on one batch.

    Image i's numbers depend on `seed`, the shift's `name` and the image's number `index[i]`, and on nothing
    else: neither on the severity nor on how a set was cut into batches. They are drawn on the CPU, so that
    every device sees the same.
    """

    def __init__(self, seed: int, index: Sequence[int], name: str = ""):
        self.seed, self.index, self.name = seed, list(index), name

    @cached_property
    def _generators(self) -> list[torch.Generator]:
        """One generator for each image; the seeds are mixed, as neighbouring seeds are not independent."""
        salt = zlib.crc32(self.name.encode())
        seeds = [np.random.SeedSequence([self.seed, salt, i]).generate_state(1)[0] for i in self.index]
        return [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def uniform(self, like: Tensor, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) uniform in [low, high), of the dtype and on the device of `like`."""
        rows = [torch.rand(shape, generator=generator) for generator in self._generators]
        return low + (high - low) * torch.stack(rows).to(like.device, like.dtype)  # (B, *shape)

    def normal(self, like: Tensor, *shape: int) -> Tensor:
        """(B, *shape) standard normal, of the dtype and on the device of `like`."""
        rows = [torch.randn(shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(like.device, like.dtype)  # (B, *shape)

    def sign(self, like: Tensor) -> Tensor:
        """(B, 1, 1, 1) of -1 and 1: which way each image goes."""
        return torch.where(self.uniform(like, 1, 1, 1) < 0.5, -1.0, 1.0).to(like.dtype)

    def whole_set_normal(self, x: Tensor) -> Tensor:
        """Standard normal noise of x's shape, from ONE generator that goes through the whole set.

        The first lessons drew their noise so, and their stored numbers stay. Image i still gets the same
        whatever the batch, but images 0 .. i are drawn for it. (torch draws the last 16 numbers of a tensor
        anew when its size is no multiple of 16: then they belong to the set's length, too.)
        """
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn((max(self.index) + 1, *x.shape[1:]), generator=generator)  # (N, C, H, W)
        return noise[self.index].to(x.device, x.dtype)  # (B, C, H, W)

    def whole_set_uniform(self, x: Tensor) -> Tensor:
        """(B, 1, 1, 1) uniform in [0, 1), from one generator that goes through the whole set."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(max(self.index) + 1, 1, 1, 1, generator=generator)[self.index].to(x.device, x.dtype)
