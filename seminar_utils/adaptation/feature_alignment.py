"""Two moments of the source features, kept for the clinic that may not keep the images, and the distance to them.

Liu et al., TTT++: When does self-supervised test-time training fail or thrive?, NeurIPS 2021, section 4.2 (online
feature alignment); Sun and Saenko, Deep CORAL, 2016 (arXiv 1607.01719, eq. 1) for the second moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..runtime import SeminarError


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance (d, d) of features (n, d). Raises SeminarError for fewer than two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise SeminarError(f"a covariance needs features (n, d) with n >= 2, got {tuple(features.shape)}")
    centred = features - features.mean(dim=0)  # (n, d)
    return centred.T @ centred / (len(features) - 1)


def coral(cov_a: Tensor, cov_b: Tensor) -> Tensor:
    """||A - B||_F^2 / (4 d^2) of two covariances (d, d)."""
    return (cov_a - cov_b).square().sum() / (4 * len(cov_a) ** 2)


def linear_mmd(mean_a: Tensor, mean_b: Tensor) -> Tensor:
    """Mean over the dimensions of the squared difference of two means (d,): the mean, not the sum."""
    return (mean_a - mean_b).square().mean()


class SourceMoments(NamedTuple):
    """What is kept of the source features: mean (d,), cov (d, d), and how far source batches lie apart by chance.

    `mean_coral`, `mean_mmd`: average distances between source batches; dividing by them makes a loss of 1 mean
    "as far away as a batch from home", whatever the scale of the features.
    """

    mean: Tensor
    cov: Tensor
    mean_coral: float
    mean_mmd: float

    @classmethod
    def of(cls, batches: Iterable[Tensor], drop_first: bool = False) -> SourceMoments:
        """Moments of batches of features (n, d). Distances are those of the later batches to the first.

        `drop_first`: leave the first batch out of mean and covariance, as the official code does (we see no
        reason, so it is not our default). The distances shrink as batches grow: give batches as large as what is
        compared with them at test time (batch and queue together). Raises SeminarError for fewer than two unlike
        batches.
        """
        batches = [batch.detach() for batch in batches]
        if len(batches) < 2 or any(len(batch) < 2 for batch in batches):
            sizes = [len(batch) for batch in batches]
            told = sizes if len(sizes) < 9 else f"{len(sizes)} of {min(sizes)} to {max(sizes)}"
            raise SeminarError(f"source moments need at least two batches of at least two rows, got {told}")
        first, later = batches[0], batches[1:]
        mean_coral = fmean(coral(covariance(first), covariance(b)).item() for b in later)
        mean_mmd = fmean(linear_mmd(first.mean(dim=0), b.mean(dim=0)).item() for b in later)
        if not mean_coral > 0 or not mean_mmd > 0:
            raise SeminarError("the source batches do not differ from each other, so their distance is no unit")
        kept = torch.cat(later if drop_first else batches)  # (N, d)
        return cls(kept.mean(dim=0), covariance(kept), mean_coral, mean_mmd)

    def to(self, like: Tensor) -> SourceMoments:
        """The same on the device and with the dtype of a tensor."""
        return SourceMoments(self.mean.to(like), self.cov.to(like), self.mean_coral, self.mean_mmd)

    def distance(self, features: Tensor, weight: float = 1.0, mean_factor: float = 0.5) -> tuple[Tensor, Tensor]:
        """Weighted distances of features (n, d) to the source: of the covariance, and of the mean (times 0.5).

        Of a single row there is no covariance: that part is 0 then.
        """
        by_mean = linear_mmd(self.mean, features.mean(dim=0)) * (weight / self.mean_mmd * mean_factor)
        if len(features) < 2:
            return features.sum() * 0, by_mean
        return coral(self.cov, covariance(features)) * (weight / self.mean_coral), by_mean


class FeatureQueue(nn.Module):
    """The last `length` features of past batches, first in, first out, without their gradients.

    A small batch has poor moments; past features lend it theirs. `snapshot` is a COPY of what is there. The
    official queue hands out its live storage instead: once the current batch is written, it counts twice (once
    with gradient, once without) and the oldest batch is gone before it was used. There, too, nothing comes out
    until the queue is full (`full`). Raises SeminarError for a length below 1 or for rows of another width.
    """

    def __init__(self, length: int, dim: int):
        if length < 1 or dim < 1:
            raise SeminarError(f"a queue has length >= 1 and dim >= 1, got {length} and {dim}")
        super().__init__()
        self.length, self.dim = length, dim
        self.register_buffer("storage", torch.zeros(length, dim))
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.storage.zero_()
        self.pointer, self.count = 0, 0

    def __len__(self) -> int:
        return self.count

    @property
    def full(self) -> bool:
        """True once `length` features have come in."""
        return self.count == self.length

    def push(self, features: Tensor) -> None:
        """Write features (n, dim) over the oldest; of more than `length` rows the last ones count."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise SeminarError(f"this queue holds rows of {self.dim} numbers, got {tuple(features.shape)}")
        rows = features.detach()[-self.length :]
        where = (self.pointer + torch.arange(len(rows), device=self.storage.device)) % self.length
        self.storage[where] = rows.to(self.storage)
        self.pointer = (self.pointer + len(rows)) % self.length
        self.count = min(self.count + len(rows), self.length)

    def snapshot(self) -> Tensor:
        """A copy of the past features (count, dim); no row when nothing came in yet."""
        return self.storage[: self.count].clone()
