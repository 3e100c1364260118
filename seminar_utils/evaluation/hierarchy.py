"""Seeds, then images: an interval for a claim about a METHOD, measured with a few networks on the same images.

Two things are random: which network the training seed gave, and which patients came. Resampling images alone is
silent about the first, three seeds alone say little about the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..runtime import SeminarError, unknown_name
from .checks import as_numpy
from .intervals import Interval, Resamples, aligned_units, draw_units, percentile_interval, row_picker

METHODS = ("t", "percentile")


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, its standard error over seeds and units together, and the degrees of freedom of that."""

    estimate: float
    error: float
    freedom: float

    def interval(self, level: float, bounds: tuple[float, float] = (-np.inf, np.inf), note: str = "") -> Interval:
        """Student's interval about the estimate, cut to `bounds`."""
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error if self.error > 0 else self.error
        low, high = np.clip([self.estimate - half, self.estimate + half], *bounds)
        return Interval(self.estimate, float(low), float(high), level, note)

    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the true value is zero; NaN when nothing varies."""
        return float(2 * stats.t.sf(abs(self.estimate) / self.error, self.freedom)) if self.error > 0 else np.nan


def seeds_and_images(
    runs: Sequence[Sequence[ArrayLike]],
    statistic: Callable[..., float],
    *,
    clusters: ArrayLike | None = None,
    n_boot: int = 500,
    level: float = 0.95,
    seed: int = 0,
    method: str = "t",
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Interval of the mean over training seeds that also counts the chance of the images (or clusters).

    Args: runs: for each seed the aligned arrays (N,) that `statistic` takes, labels first, e.g.
    `[(labels, predictions_0), (labels, predictions_1)]`: the SAME images in the same order for every seed, so one
    resample of images serves all seeds. (Has each seed images of its own, then `seed_interval` says it all.)
    method: "t" adds the variance over seeds and that over images (bootstrap), with Satterthwaite's degrees of
    freedom, and holds from three seeds on; "percentile" is the two-level bootstrap, seeds drawn first, then
    images: where the seeds differ more than the images it needs about ten of them, and says so in its note.
    Raises SeminarError for fewer than two seeds or labels that differ between the seeds.
    Source: Satterthwaite, An approximate distribution of estimates of variance components, 1946; Owen, The
    pigeonhole bootstrap, 2007 (both levels drawn).
    """
    if method not in METHODS:
        raise unknown_name("method for seeds and images", method, METHODS)
    table, values, units = _resampled_runs(runs, statistic, clusters, n_boot, seed)
    if method == "percentile":
        chosen = np.random.default_rng([seed, 1]).integers(0, len(values), size=table.shape)  # (n_boot, S)
        draws = Resamples(np.take_along_axis(table, chosen, 1).mean(1), float(values.mean()), units)
        found = percentile_interval(draws, level)
        few = f"{len(values)} seeds: perhaps too narrow, prefer method 't'" if len(values) < 10 else ""
        note = "; ".join(filter(None, [found.note, few]))
        return Interval(found.mean, *np.clip([found.low, found.high], *bounds).tolist(), level, note)
    return spread(table, values, units).interval(level, bounds)


def _resampled_runs(
    runs: Sequence[Sequence[ArrayLike]], statistic: Callable, clusters: ArrayLike | None, n_boot: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The statistic of each seed on resampled images (n_boot, S) and on all (S,), and the number of units."""
    runs = [[as_numpy(array) for array in run] for run in runs]
    if len(runs) < 2:
        raise SeminarError(f"seeds as a level need at least two runs, got {len(runs)}")
    if len({len(run) for run in runs}) != 1 or any(not np.array_equal(runs[0][0], run[0]) for run in runs):
        raise SeminarError(
            "every seed's run should hold the same images in the same order, but their labels differ: "
            "bring each stream back into the order of the images"
        )
    _, members = aligned_units([array for run in runs for array in run], clusters)
    table, rows_of = [], row_picker(members)
    for units in draw_units(len(members), n_boot, seed):
        rows = rows_of(units)
        table.append([statistic(*(array[rows] for array in run)) for run in runs])
    return np.array(table, dtype=float), np.array([statistic(*run) for run in runs], dtype=float), len(members)


def spread(table: np.ndarray, values: np.ndarray, units: int) -> Spread:
    """Standard error of the mean of `values` (S,) over seeds, with `table` (n_boot, S) of resampled images."""
    table = table[~np.isnan(table).any(axis=1)]
    if len(table) < 2 or np.isnan(values).any():
        return Spread(np.nan, np.nan, np.nan)
    of_seeds = values.var(ddof=1) / len(values)
    of_images = table.mean(axis=1).var(ddof=1)
    # what one image does to one seed alone is in both terms; its share, from the seeds' own wobble, is taken off
    own = (table - table.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean() / (len(values) - 1)
    total = max(of_seeds + of_images - own, of_seeds, of_images)
    parts = of_seeds**2 / (len(values) - 1) + of_images**2 / (units - 1)
    freedom = (of_seeds + of_images) ** 2 / parts if parts > 0 else np.inf
    return Spread(float(values.mean()), float(np.sqrt(total)), float(freedom))


def seeds_and_images_spread(
    runs: Sequence[Sequence[ArrayLike]],
    statistic: Callable[..., float],
    clusters: ArrayLike | None = None,
    n_boot: int = 500,
    seed: int = 0,
) -> Spread:
    """What `seeds_and_images` (method "t") rests on: estimate, standard error, degrees of freedom."""
    return spread(*_resampled_runs(runs, statistic, clusters, n_boot, seed))
