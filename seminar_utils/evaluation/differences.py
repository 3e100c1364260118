"""Is this difference real? One call, an answer in words; with many comparisons, Holm's correction.

"Real" means: patients (and seeds) drawn anew would very likely show a difference of the same sign. It does not
mean large, and not that it holds in another hospital.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..runtime import SeminarError
from .checks import as_numpy
from .hierarchy import seeds_and_images_spread
from .intervals import (
    Interval,
    Resamples,
    bootstrap_interval,
    paired_difference,
    percentile_interval,
    resample,
)
from .metrics import balanced_accuracy


@dataclass(frozen=True)
class Difference:
    """`after - before` with its interval, and what may be said about it.

    p: two-sided; adjusted_p: after Holm's correction for `comparisons` (one comparison: the same); over: what was
    resampled, in words; smallest: the least difference that matters to the clinic, in units of the metric.
    """

    metric: str
    interval: Interval
    p: float
    adjusted_p: float
    over: str
    comparisons: int = 1
    smallest: float = 0.0
    higher_is_better: bool = True

    @property
    def real(self) -> bool:
        """True when the corrected p is below 1 - level and the interval excludes zero."""
        return self.adjusted_p < 1 - self.interval.level and self.interval.excludes_zero()

    @property
    def matters(self) -> bool:
        """False when the whole interval lies within `smallest` of zero."""
        return not max(abs(self.interval.low), abs(self.interval.high)) < self.smallest

    @property
    def sentence(self) -> str:
        """The answer in plain words, with the numbers it rests on."""
        found = self.interval
        if math.isnan(self.adjusted_p) or math.isnan(found.low):
            return f"Cannot be judged: {self.metric} is undefined here ({found.note or 'NaN'})."
        numbers = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] over {self.over} ({self._p()})"
        small = f", but all of it is smaller than the {self.smallest:g} that matters" if not self.matters else ""
        if self.real:
            better = (found.mean > 0) == self.higher_is_better
            return f"Yes, it is real and {'better' if better else 'WORSE'}: {self.metric} {numbers}{small}."
        if not self.matters:
            return f"No difference that matters: {self.metric} {numbers}; none of it reaches {self.smallest:g}."
        if found.excludes_zero() and self.comparisons > 1:
            return (
                f"Not shown: {self.metric} {numbers}; its interval alone excludes zero, but among "
                f"{self.comparisons} comparisons such a one comes up by chance."
            )
        return f"Not shown: {self.metric} {numbers}; {found.low:+.3f} and {found.high:+.3f} fit the data as well."

    def _p(self) -> str:
        if self.comparisons == 1:
            return _p_in_words(self.p)
        return f"{_p_in_words(self.adjusted_p)} after Holm's correction for {self.comparisons} comparisons"

    def __str__(self) -> str:
        return self.sentence


def _p_in_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def is_real(
    before: ArrayLike | Sequence[ArrayLike],
    after: ArrayLike | Sequence[ArrayLike],
    labels: ArrayLike | None = None,
    *,
    statistic: Callable[[Any, Any], float] = balanced_accuracy,
    seeds: bool = False,
    clusters: ArrayLike | None = None,
    unit: str = "clusters",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    method: str = "percentile",
    smallest: float = 0.0,
    higher_is_better: bool = True,
    metric: str | None = None,
) -> Difference:
    """Is `after` different from `before`? Always paired; `print` the answer to read it.

    Three kinds of evidence:
    * `labels` (N,) with predictions (N,) or probabilities (N, K), whatever `statistic(labels, answers)` takes:
      resamples the images, or whole `clusters` (patients) when their ids (N,) come;
    * the same with `seeds=True`, `before` and `after` holding one such array for each training seed, all in the
      order of `labels`: resamples seeds and images (`hierarchy.seeds_and_images`);
    * without labels, `before` and `after` are one number of the metric a seed: Student's paired t.
    unit: what a cluster is, for the sentence ("patients"); smallest: a difference below it does not matter.
    Raises SeminarError for unequal lengths or too little data.
    """
    if labels is None:
        if clusters is not None or seeds:
            raise SeminarError(
                "clusters and seeds=True need the labels and answers of all images, labels are missing"
            )
        found, p = _over_seeds(before, after, level)
        over = f"{len(before)} training seeds"
    elif seeds:
        found, p, units = _over_both(labels, before, after, statistic, clusters, n_boot, level, seed)
        over = f"{len(before)} training seeds and {_units(units, clusters, unit)}"
    else:
        options = {"n_boot": n_boot, "seed": seed, "clusters": clusters}
        found, p, units = _over_images(labels, before, after, statistic, level, method, options)
        over = _units(units, clusters, unit)
    of_statistic = "the metric" if labels is None else getattr(statistic, "__name__", "the metric")
    name = metric or of_statistic.replace("_", " ")
    return Difference(name, found, p, p, over, 1, smallest, higher_is_better)


def are_real(
    before: Any, afters: Mapping[str, Any], labels: ArrayLike | None = None, n_boot: int = 2000, **options: Any
) -> dict[str, Difference]:
    """`is_real` for every method in `afters` against one `before`, with Holm's correction over all of them.

    options: those of `is_real`. `n_boot` is raised where it is too small for so many comparisons: a bootstrap's
    p is never below 2 / (n_boot + 1).
    """
    if not afters:
        raise SeminarError("are_real needs at least one method to compare, got none")
    n_boot = max(n_boot, math.ceil(8 * len(afters) / (1 - options.get("level", 0.95))))
    found = {name: is_real(before, after, labels, n_boot=n_boot, **options) for name, after in afters.items()}
    return correct(found)


def correct(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same differences with p adjusted for all of them together (Holm): state every comparison you made."""
    adjusted = holm([difference.p for difference in differences.values()])
    return {
        name: replace(difference, adjusted_p=float(p), comparisons=len(differences))
        for (name, difference), p in zip(differences.items(), adjusted)
    }


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values (m,), in the given order: reject where they are below your level.

    The chance of any false alarm among all m stays below the level, whatever their dependence. A NaN (a
    comparison that could not be judged) stays NaN, and counts among the m.
    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or p.size == 0 or (p < 0).any() or (p > 1).any():
        raise SeminarError(f"Holm's correction takes p-values in [0, 1], got {p_values!r:.80}")
    order = np.argsort(p)  # NaN last
    steps = (len(p) - np.arange(len(p))) * p[order]  # the smallest times m, the next times m - 1, ...
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _over_seeds(before: ArrayLike, after: ArrayLike, level: float) -> tuple[Interval, float]:
    before, after = as_numpy(before), as_numpy(after)
    if any(values.ndim != 1 or values.dtype.kind not in "fiu" for values in (before, after)):
        raise SeminarError("without labels, before and after are one number a training seed; give the labels too?")
    before, after = before.astype(float), after.astype(float)
    found = paired_difference(before, after, level)
    gaps = after - before
    if np.ptp(gaps) <= 1e-9 * max(1.0, np.abs(gaps).max()):  # no spread to judge by: Student's t would be sure
        return found, 1.0 if np.allclose(gaps, 0) else float(2.0 ** (1 - len(gaps)))  # the sign test's p
    return found, float(stats.ttest_rel(after, before).pvalue)


def _over_images(labels, before, after, statistic, level, method, options) -> tuple[Interval, float, int]:
    def difference(labels, before, after) -> float:
        return statistic(labels, after) - statistic(labels, before)

    arrays = [as_numpy(array) for array in (labels, before, after)]
    if method == "percentile":
        draws = resample(*arrays, statistic=difference, **options)
        found = percentile_interval(draws, level)
    else:
        found = bootstrap_interval(*arrays, statistic=difference, level=level, method=method, **options)
        draws = resample(*arrays, statistic=difference, **options)
    p = np.nan if np.isnan(found.low) else bootstrap_p(draws)
    return found, p, draws.units


def bootstrap_p(draws: Resamples) -> float:
    """Two-sided p that belongs to the percentile interval: it is below 0.05 where the 95% interval excludes zero.

    Twice the share of resamples on the far side of zero, never below 2 / (n_boot + 1). NaN if undefined.
    """
    values = draws.values[~np.isnan(draws.values)]
    if np.isnan(draws.estimate) or len(values) == 0:
        return np.nan
    tails = 1 + min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * tails / (len(values) + 1)))


def _over_both(labels, before, after, statistic, clusters, n_boot, level, seed) -> tuple[Interval, float, int]:
    if len(before) != len(after):
        raise SeminarError(f"paired seeds need as many runs before as after, got {len(before)} and {len(after)}")

    def difference(labels, before, after) -> float:
        return statistic(labels, after) - statistic(labels, before)

    runs = [(labels, one, other) for one, other in zip(before, after)]
    spread = seeds_and_images_spread(runs, difference, clusters, n_boot, seed)
    count = len(np.unique(as_numpy(clusters))) if clusters is not None else len(labels)
    return spread.interval(level), spread.p_value(), count


def _units(count: int, clusters: ArrayLike | None, unit: str) -> str:
    return f"{count} images taken as independent" if clusters is None else f"{count} {unit}"
