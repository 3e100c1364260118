"""In which order do patients come? Each order is a function of (labels (N,), seed) that returns indices.

No image comes twice; "iid", "class" and "dirichlet" show every image once, the two with a prevalence leave out
what does not fit it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..runtime import SeminarError


def iid_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Patients in random order: what most papers assume. Indices (N,)."""
    return np.random.default_rng(seed).permutation(len(labels))


def class_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Patients sorted by class (random within a class): one clinic after another. Indices (N,)."""
    shuffled = iid_order(labels, seed)
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def prevalence_order(labels: np.ndarray, seed: int, share: float = 0.9) -> np.ndarray:
    """A stream in which `share` of the patients belong to one class, drawn by the seed. Indices (M,), M <= N."""
    if not 0 < share < 1:
        raise SeminarError(f"share is a number between 0 and 1, got {share!r}")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    common = rng.choice(np.unique(labels))
    often, rare = shuffled[labels[shuffled] == common], shuffled[labels[shuffled] != common]
    keep = rare[: max(1, round(len(often) * (1 - share) / share))]
    return rng.permutation(np.concatenate([often, keep]))


def dirichlet_order(labels: np.ndarray, seed: int, delta: float = 0.1, slots: int = 100) -> np.ndarray:
    """Correlated patients: each class is dealt out over `slots` stretches of time in Dirichlet(delta) shares.

    Source: Gong et al. 2022 (NOTE), section 4, and Yuan et al. 2023 (RoTTA), section 4.1. A small delta puts a
    class into few stretches, a large one gives an i.i.d. stream: within a stretch we shuffle. Indices (N,).
    """
    if not delta > 0 or isinstance(slots, bool) or not isinstance(slots, int | np.integer) or slots < 1:
        raise SeminarError(
            f"delta is a number above 0, slots an integer of at least 1, got {delta!r} and {slots!r}"
        )
    rng = np.random.default_rng(seed)
    slot_of = np.empty(len(labels), dtype=int)  # (N,): the stretch in which each patient comes
    for label in np.unique(labels):
        patients = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(rng.dirichlet(np.full(slots, delta)))  # (slots,), the last about 1
        middles = (np.arange(len(patients)) + 0.5) / len(patients)
        slot_of[patients] = np.minimum(np.searchsorted(ends, middles), slots - 1)
    return np.lexsort((rng.random(len(labels)), slot_of))


def changing_prevalence_order(
    labels: np.ndarray, seed: int, start: float = 0.1, end: float = 0.9, label: int | None = None
) -> np.ndarray:
    """An epidemic: the share of one class goes in a line from `start` to `end`. Indices (M,), M <= N.

    label: which class (default: drawn by the seed). Within every stretch the share is as planned to within one
    patient; the stream ends where one of the two sides would run out.
    """
    if not (0 <= start <= 1 and 0 <= end <= 1 and 0 < start + end < 2):
        raise SeminarError(f"start and end are shares in [0, 1], not both 0 or both 1, got {start!r}, {end!r}")
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    common = rng.choice(classes) if label is None else label
    shuffled = rng.permutation(len(labels))
    often, rare = shuffled[labels[shuffled] == common], shuffled[labels[shuffled] != common]
    if not len(often) or not len(rare):
        raise SeminarError(f"a changing prevalence needs images of class {common!r} and of others, got {classes}")
    mean = (start + end) / 2
    planned = _line(start, end, int(min(len(often) / mean, len(rare) / (1 - mean))), rng.random())  # (M,) bool
    while planned.sum() > len(often) or (~planned).sum() > len(rare):  # rounding may ask for one too many
        planned = _line(start, end, len(planned) - 1, 0.5)
    order = np.empty(len(planned), dtype=int)
    order[planned], order[~planned] = often[: planned.sum()], rare[: (~planned).sum()]
    return order


def _line(start: float, end: float, count: int, offset: float) -> np.ndarray:
    """Who of `count` patients is of the class: one each time that the planned sum passes a whole number."""
    share = start + (end - start) * (np.arange(count) + 0.5) / max(count, 1)  # (count,)
    return np.diff(np.floor(np.cumsum(share) + offset), prepend=np.floor(offset)) > 0


ORDERS: dict[str, Callable[..., np.ndarray]] = {
    "iid": iid_order,
    "class": class_order,
    "prevalence": prevalence_order,
    "dirichlet": dirichlet_order,
    "changing_prevalence": changing_prevalence_order,
}
