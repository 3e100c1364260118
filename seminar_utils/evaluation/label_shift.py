"""Label shift: the same disease, another share of patients who have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from ..data.dataset import ImageSet
from ..runtime import SeminarError


def resample_prevalence(
    images: ImageSet,
    prevalence: float | Sequence[float] | Mapping[str, float],
    n: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """A subset of `images` in which the classes have the given shares; p(image | class) stays as it is.

    Args: prevalence: the share of class 1 for two classes, or one share per class, in the classes' order or by
    name, summing to 1; n: how many images (default: as many as there can be). No image is drawn twice; counts
    are rounded to whole images; the seed fixes which images, and their order.
    Raises SeminarError for shares that are none, several labels per image, or more images than there are.
    """
    if images.multi_label:
        raise SeminarError(f"prevalence needs one label per image, {images.name!r} has several")
    shares = _shares(prevalence, images.class_names)  # (K,)
    have = np.bincount(images.labels, minlength=len(shares))  # (K,)
    most = _most(shares, have)
    if n is None:
        n = most
    elif isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise SeminarError(f"n is a number of images of at least 1, got {n!r}")
    if n > most or most == 0:
        said = ", ".join(f"{name} {count}" for name, count in zip(images.class_names, have))
        raise SeminarError(
            f"{n or 'any'} images at the prevalence {np.round(shares, 4).tolist()} need more than there are "
            f"({said}); at most {most} can be had without drawing one twice"
        )
    rng = np.random.default_rng(seed)
    counts = _whole(shares, n)
    chosen = [rng.permutation(np.flatnonzero(images.labels == k))[:count] for k, count in enumerate(counts)]
    return images.subset(rng.permutation(np.concatenate(chosen)))


def _shares(prevalence: float | Sequence[float] | Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    """One share per class, (K,), checked."""
    wanted = f"prevalence is a share for each of the classes {names}, not negative, summing to 1"
    if isinstance(prevalence, Mapping):
        if set(prevalence) != set(names):
            raise SeminarError(f"{wanted}; got shares for {sorted(map(str, prevalence))}")
        prevalence = [prevalence[name] for name in names]
    elif isinstance(prevalence, Real):
        if len(names) != 2:
            raise SeminarError(f"{wanted} (a single number is for two classes); got {prevalence!r}")
        prevalence = [1 - prevalence, prevalence]
    try:
        shares = np.asarray(prevalence, dtype=float)
    except (TypeError, ValueError):
        raise SeminarError(f"{wanted}; got {prevalence!r}") from None
    if shares.shape != (len(names),) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise SeminarError(f"{wanted}; got {prevalence!r}")
    return shares


def _whole(shares: np.ndarray, n: int) -> np.ndarray:
    """n images as whole numbers in the given shares: the largest remainders are rounded up, (K,)."""
    counts = np.floor(shares * n + 1e-9).astype(int)
    by_remainder = np.argsort(counts - shares * n, kind="stable")
    counts[by_remainder[: n - counts.sum()]] += 1
    return counts


def _most(shares: np.ndarray, have: np.ndarray) -> int:
    """The largest n with shares * n <= have; whole counts are then there, too, as what there is is whole."""
    asked = shares > 0
    return int((have[asked] / shares[asked]).min() + 1e-9)
