"""How sure are we? Intervals over images or patients (bootstrap), over training seeds, and over both.

What is resampled must be what is independent: patients when a patient has several images (`clusters`), training
seeds when the claim is about a method and not about one set of weights (`seeds_and_images`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..runtime import SeminarError, unknown_name
from .checks import as_numpy

METHODS = ("percentile", "bca")
UNDEFINED_SHARE = 0.05  # so many resamples may lack a class before the interval itself is undefined


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% (or `level`) interval; prints as `0.84 [0.80, 0.88]`.

    `note` says what was not as usual (resamples without a class, a method that could not be used).
    """

    mean: float
    low: float
    high: float
    level: float = 0.95
    note: str = ""

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def excludes_zero(self) -> bool:
        """True when the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Resamples:
    """The values (n_boot,) of a statistic on resampled units, its value on all, and how many units there are."""

    values: np.ndarray
    estimate: float
    units: int


def bootstrap_interval(
    *arrays: np.ndarray,
    statistic: Callable[..., float],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    clusters: ArrayLike | None = None,
    method: str = "percentile",
    vectorized: bool = False,
) -> Interval:
    """Bootstrap over images: the arrays are resampled together, row by row, so a difference stays paired.

    Args: arrays: aligned arrays of length N, e.g. labels and predictions; statistic: called on the resampled
    arrays; clusters: an id (N,) for each row (patient, slide, volume): whole clusters are drawn, because images
    of one patient are alike and do not count as so many; method: "percentile", or "bca", which corrects bias and
    skew at the price of one more call a unit; vectorized: the statistic takes arrays (n, N) and reduces the last
    axis (clusters of one size only).
    Resamples in which the statistic is NaN (a class is missing) are left out and counted in the note; are they
    more than 5%, the interval is NaN. Raises SeminarError for fewer than two rows or clusters, or unequal lengths.
    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapters 13 and 14.
    """
    if method not in METHODS:
        raise unknown_name("bootstrap method", method, METHODS)
    draws = resample(
        *arrays, statistic=statistic, n_boot=n_boot, seed=seed, clusters=clusters, vectorized=vectorized
    )
    percentile = percentile_interval(draws, level)
    if method == "percentile" or np.isnan(percentile.low):
        return percentile
    on_units = _on_units(statistic, *aligned_units(arrays, clusters), vectorized)
    return _bca_interval(draws, on_units, vectorized, percentile)


def resample(
    *arrays: np.ndarray,
    statistic: Callable[..., float],
    n_boot: int = 1000,
    seed: int = 0,
    clusters: ArrayLike | None = None,
    vectorized: bool = False,
) -> Resamples:
    """The statistic on `n_boot` resamples of the rows (or of whole clusters); arguments as above."""
    arrays, members = aligned_units(arrays, clusters)
    drawn = draw_units(len(members), n_boot, seed)  # (n_boot, units)
    on_units = _on_units(statistic, arrays, members, vectorized)
    values = on_units(drawn) if vectorized else [on_units(units) for units in drawn]
    return Resamples(np.asarray(values, dtype=float), float(statistic(*arrays)), len(members))


def draw_units(count: int, n_boot: int, seed: int) -> np.ndarray:
    """Numbers (n_boot, count) of the units in each resample, drawn with replacement."""
    if n_boot < 2:
        raise SeminarError(f"a bootstrap needs at least two resamples, got n_boot {n_boot}")
    return np.random.default_rng(seed).integers(0, count, size=(n_boot, count))


def _on_units(
    statistic: Callable, arrays: list[np.ndarray], members: list[np.ndarray], vectorized: bool
) -> Callable:
    """The statistic as a function of unit numbers (units,), or (n, units) when it is vectorized."""
    if vectorized and len({len(rows) for rows in members}) != 1:
        raise SeminarError("a vectorized statistic needs clusters of one size, these differ")
    rows_of = row_picker(members)

    def on_units(units: np.ndarray, axis: int = -1) -> np.ndarray:  # scipy passes the axis
        rows = rows_of(units.astype(int))
        return statistic(*(array[rows] for array in arrays))

    return on_units


def row_picker(members: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from unit numbers (..., units) to their rows (..., N), one unit after another."""
    if len({len(rows) for rows in members}) == 1:
        table = np.stack(members)  # (units, size)
        return lambda units: table[units].reshape(*units.shape[:-1], -1)  # (..., units, size) -> (..., N)
    return lambda units: np.concatenate([members[unit] for unit in units])


def aligned_units(
    arrays: Sequence[ArrayLike], clusters: ArrayLike | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays, checked, and the rows of each unit that is drawn as a whole."""
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or next(iter(lengths)) < 2:
        raise SeminarError("the bootstrap needs aligned arrays of at least two rows")
    arrays, count = [as_numpy(array) for array in arrays], lengths.pop()
    if clusters is None:
        return arrays, list(np.arange(count)[:, None])
    clusters = as_numpy(clusters)
    if clusters.shape != (count,):
        raise SeminarError(f"clusters should be one id for each of the {count} rows, got shape {clusters.shape}")
    names, index = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        raise SeminarError(f"the bootstrap needs at least two clusters, all {count} rows are of {names[0]!r}")
    by_cluster = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    return arrays, by_cluster


def percentile_interval(draws: Resamples, level: float = 0.95) -> Interval:
    """The interval between two quantiles of the resamples; undefined ones are left out and told."""
    if not 0 < level < 1:
        raise SeminarError(f"a level lies between 0 and 1, got {level}")
    missing = int(np.isnan(draws.values).sum())
    note = f"{missing} of {len(draws.values)} resamples undefined" if missing else ""
    if np.isnan(draws.estimate) or missing > UNDEFINED_SHARE * len(draws.values):
        return Interval(draws.estimate, np.nan, np.nan, level, note or "the statistic is undefined on all rows")
    low, high = np.nanquantile(draws.values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(draws.estimate, float(low), float(high), level, note)


def _bca_interval(draws: Resamples, on_units: Callable, vectorized: bool, percentile: Interval) -> Interval:
    """BCa by scipy from the same resamples; the percentile interval, with a note, where BCa is undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a degenerate distribution; the note below says it in words
        found = stats.bootstrap(
            (np.arange(draws.units),),  # scipy leaves out one unit at a time to measure the skew
            on_units,
            n_resamples=0,
            batch=max(1, 2_000_000 // draws.units),
            vectorized=vectorized,
            confidence_level=percentile.level,
            method="BCa",
            bootstrap_result=SimpleNamespace(bootstrap_distribution=draws.values[~np.isnan(draws.values)]),
        ).confidence_interval
    if np.isnan(found.low) or np.isnan(found.high):
        note = "BCa is undefined here, this is the percentile interval"
        return replace(percentile, note="; ".join(filter(None, [percentile.note, note])))
    return replace(percentile, low=float(found.low), high=float(found.high))


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
