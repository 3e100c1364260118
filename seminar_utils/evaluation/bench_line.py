"""Which worker takes which cell: what neighbouring cells share is made once, and nobody waits at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .bench_cells import Cell

Turn = tuple[Cell, int]  # a cell, and the number of this attempt


class Line:
    """Cells in the order of `Cell.place`, cut into one share a worker, of neighbours.

    Neighbours need the same images, the same shift of them and the same run of the source model, which a process
    keeps. Handed out one by one to whoever is free, they would have each worker make all of that again: on the
    engine's own benchmark a quarter of the work. Who has nothing left takes the later half of the longest share,
    so that however unlike the cells are, the last wait is for one of them.
    """

    def __init__(self, cells: Sequence[Cell], workers: int):
        """Raises ValueError for no worker."""
        if workers < 1:
            raise ValueError(f"a line needs at least one worker, got {workers}")
        bounds = [round(k * len(cells) / workers) for k in range(workers + 1)]
        self.shares = [deque((cell, 1) for cell in cells[a:b]) for a, b in zip(bounds, bounds[1:])]

    def __len__(self) -> int:
        return sum(map(len, self.shares))

    def take(self, worker: int) -> Turn | None:
        """The next cell of the worker of that number (0, 1, ...); None when nothing is left for anybody."""
        own = self.shares[worker]
        if not own:
            longest = max(self.shares, key=len)
            stolen = [longest.pop() for _ in range((len(longest) + 1) // 2)]
            own.extend(reversed(stolen))
        return own.popleft() if own else None

    def again(self, worker: int, cell: Cell, attempt: int) -> None:
        """A cell that its worker did not survive comes first in that worker's share."""
        self.shares[worker].appendleft((cell, attempt))
