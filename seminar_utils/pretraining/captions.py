"""What CLIP's training does to captions: words are left out, and batches are made of near misses.

In a random batch a caption differs from the others in many ways, so the easiest one (where, how bright) is all
that has to be seen. In a batch of hard negatives some captions differ in one factor only, and the network must
look for it. Compare the hard negatives of contrastive learning, Robinson et al., 2021 (arXiv 2010.04592).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..runtime import SeminarError, unknown_name


def drop_words(ids: Tensor, rate: float) -> Tensor:
    """Leave words out of the captions ids (B, L) at random and close the gaps; start and end tokens stay."""
    place = torch.arange(ids.shape[1])
    end = ids.argmax(dim=1, keepdim=True)  # (B, 1)
    dropped = (torch.rand(ids.shape) < rate) & (place > 0) & (place < end)
    order = dropped.long().sort(dim=1, stable=True).indices  # the kept ones first, in their order
    return ids.masked_fill(dropped, 0).gather(1, order)  # zeros stand behind the end token


def hard_negative_batches(
    factors: Mapping[str, np.ndarray], batch_size: int, rng: np.random.Generator, vary: Collection[str] = ()
) -> Iterator[np.ndarray]:
    """Endless batches of rows (B,), made of groups whose captions differ in one factor only.

    For each batch one factor is drawn, of those in `vary` if there are any. A group agrees in all the others
    and holds one random image of each value of this one; groups are added until the batch is full. So no
    caption is there twice, and a batch is shorter than `batch_size` when there are fewer different captions.
    Args: factors: all that captions say, name -> (N,) integers. Raises SeminarError if no two captions differ
    in just one factor, or `vary` names none of them.
    """
    columns = {name: np.asarray(values) for name, values in factors.items()}
    if not columns or any(v.ndim != 1 or v.dtype.kind not in "iu" for v in columns.values()):
        raise SeminarError("factors map names to (N,) integers, at least one")
    if len({len(values) for values in columns.values()}) > 1:
        raise SeminarError(f"all factors have the same number of values, got {[*map(len, columns.values())]}")
    for name in set(vary) - set(columns):
        raise unknown_name("factor", name, columns)
    splits = [split for name in vary or columns if (split := split_by_factor(columns, name)) is not None]
    if not splits:
        raise SeminarError(
            f"no two captions differ in only one of {', '.join(vary or columns)}: no hard negatives here"
        )
    while True:
        group, caption = splits[rng.integers(len(splits))]  # (N,) each, -1 where there is no near miss
        order = rng.permutation(np.flatnonzero(group >= 0))
        _, first = np.unique(caption[order], return_index=True)
        rows = order[first]  # one random image of each caption
        place = rng.permutation(group.max() + 1)[group[rows]]  # the groups in random order
        yield rows[np.argsort(place, kind="stable")][:batch_size]


def split_by_factor(columns: Mapping[str, np.ndarray], vary: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers (N,) of the group and of the caption of each row, when `vary` is the factor that varies.

    Rows without a near miss have group -1; None when that is all of them.
    """
    rest = np.stack([np.zeros_like(columns[vary]), *(v for name, v in columns.items() if name != vary)], axis=1)
    _, group = np.unique(rest, axis=0, return_inverse=True)  # (N,)
    pairs, caption = np.unique(np.stack([group, columns[vary]], axis=1), axis=0, return_inverse=True)
    alone = np.bincount(pairs[:, 0])[group] < 2
    return None if alone.all() else (np.where(alone, -1, group), caption)
