"""How sure are we? Intervals over images (bootstrap) and over training seeds (Student's t)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..runtime import SeminarError


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% (or `level`) interval; prints as `0.84 [0.80, 0.88]`."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def excludes_zero(self) -> bool:
        """True when the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    *arrays: np.ndarray,
    statistic: Callable[..., float],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over images: the arrays are resampled together, row by row.

    Args: arrays: aligned arrays of length N, e.g. labels and predictions; statistic: called on the
    resampled arrays. Raises SeminarError for fewer than two rows or unequal lengths.
    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths.pop() < 2:
        raise SeminarError("the bootstrap needs aligned arrays of at least two rows")
    arrays = tuple(np.asarray(array) for array in arrays)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(arrays[0]), size=(n_boot, len(arrays[0])))  # (n_boot, N)
    values = [statistic(*(array[row] for array in arrays)) for row in rows]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high), level)


def seed_interval(
    values: Sequence[float], level: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """Student-t interval of the mean over independent training seeds (at least two).

    `bounds` cuts the interval to the range a metric can have. Three seeds give a wide interval; that is
    the truth about three seeds, not a flaw of the method.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise SeminarError(f"an interval over seeds needs at least two values, got {values.size}")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    low, high = np.clip([values.mean() - half, values.mean() + half], *bounds)
    return Interval(float(values.mean()), float(low), float(high), level)


def paired_difference(before: Sequence[float], after: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean of `after - before`, paired seed by seed: the fair test of a gain.

    Pairing removes what both runs share (the source model, the images), so it can find a gain that two
    overlapping separate intervals hide. Raises SeminarError unless the lengths agree.
    """
    if len(before) != len(after):
        raise SeminarError(f"paired values need equal lengths, got {len(before)} and {len(after)}")
    return seed_interval(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), level)
