"""Data sets: `load(name, split)` gives an `ImageSet`, `available()` says which names there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from seminar_utils.data.dataset import SPLITS, Card, ImageSet
from seminar_utils.data.medmnist import load_medmnist, medmnist_names
from seminar_utils.data.phantom_sets import load_phantoms
from seminar_utils.data.real_sets import load_nuclei, load_wbc
from seminar_utils.data.real_shift import REAL_SHIFTS, RealShift, real_shift
from seminar_utils.data.skimage_sets import PICTURES, load_skimage
from seminar_utils.runtime import SeminarError, unknown_name

__all__ = [
    "REAL_SHIFTS",
    "SPLITS",
    "Card",
    "ImageSet",
    "RealShift",
    "available",
    "load",
    "options_of",
    "real_shift",
]

REAL_SETS = {"nuclei": load_nuclei, "wbc": load_wbc}


def available() -> list[str]:
    """All names `load` knows: phantoms, scikit-image's pictures, sets of several sites, MedMNIST's 2D sets."""
    return ["phantoms", *sorted(PICTURES), *REAL_SETS, *medmnist_names()]


def load(name: str, split: str = "train", **options: Any) -> ImageSet:
    """Load one split of a data set.

    options: for "phantoms" n, scanner, strength, seed, task (see `phantom_sets.load_phantoms`); for MedMNIST
    size (28, 64, 128, 224); for "wbc" and "nuclei" domain (see real_sets.py). Raises SeminarError on an
    unknown name (with the nearest ones), split or option.
    """
    known = list(options_of(name))
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    strange = sorted(set(options) - set(known))
    if strange:
        raise SeminarError(f"data set {name!r} takes the options {known}, got {strange}")
    return _loader_of(name)(split=split, **options)


def options_of(name: str) -> dict[str, Any]:
    """The options that `load` takes for a data set, with their defaults. Raises SeminarError for another name."""
    if name not in available():
        raise unknown_name("data set", name, available())
    parameters = inspect.signature(_loader_of(name)).parameters.values()
    return {one.name: one.default for one in parameters if one.name not in ("name", "split")}


def _loader_of(name: str) -> Callable[..., ImageSet]:
    if name == "phantoms":
        return load_phantoms
    if name in REAL_SETS:
        return REAL_SETS[name]
    return partial(load_skimage if name in PICTURES else load_medmnist, name)
