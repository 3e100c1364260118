"""How well does a mask fit? Overlap (Dice, IoU) and distance between boundaries (HD95, mean surface distance).

Masks are boolean or 0 / 1 arrays of any number of axes, (H, W) or (D, H, W), target first. Overlap hardly sees a
thin spike or a small second blob; boundary distances do, and they are in millimetres when `spacing` is.
Choices that other libraries make otherwise are stated in each docstring. Overview of the pitfalls: Maier-Hein et
al., Metrics reloaded, Nature Methods 2024 (arXiv 2206.01653).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..runtime import SeminarError
from .checks import Undefined, as_numpy


def _mask(values: ArrayLike, what: str) -> np.ndarray:
    array = as_numpy(values)
    binary = array.dtype == bool or (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all())
    if array.ndim < 1 or array.size == 0 or not binary:
        raise SeminarError(f"{what} should be a mask of 0 and 1 with cells in it; got {array.dtype} {array.shape}")
    return array.astype(bool)


def _masks(target: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    target, predicted = _mask(target, "the target"), _mask(predicted, "the prediction")
    if target.shape != predicted.shape:
        raise SeminarError(f"masks differ in shape: target {target.shape}, prediction {predicted.shape}")
    return target, predicted


def dice(target: ArrayLike, predicted: ArrayLike) -> float:
    """Dice = 2 |A and B| / (|A| + |B|) in [0, 1]. Two empty masks are 0 / 0: Undefined, neither 0 nor 1."""
    target, predicted = _masks(target, predicted)
    total = int(target.sum()) + int(predicted.sum())
    if total == 0:
        return Undefined("both masks are empty")
    return float(2 * (target & predicted).sum() / total)


def iou(target: ArrayLike, predicted: ArrayLike) -> float:
    """Intersection over union (Jaccard) in [0, 1]; = Dice / (2 - Dice). Undefined for two empty masks."""
    target, predicted = _masks(target, predicted)
    union = int((target | predicted).sum())
    if union == 0:
        return Undefined("both masks are empty")
    return float((target & predicted).sum() / union)


def per_class_dice(target: ArrayLike, predicted: ArrayLike, num_classes: int) -> list[float]:
    """Dice of each class of two integer label maps, K values; Undefined for a class that is in neither."""
    target, predicted = as_numpy(target), as_numpy(predicted)
    for what, array in {"target": target, "prediction": predicted}.items():
        if array.dtype.kind not in "iu" or array.size == 0 or array.min() < 0 or array.max() >= num_classes:
            raise SeminarError(
                f"the {what} should be integers in [0, {num_classes}); got {array.dtype} {array.shape}"
            )
    return [dice(target == k, predicted == k) for k in range(num_classes)]


def boundary(mask: np.ndarray) -> np.ndarray:
    """The cells of a mask that touch the background by a face; what lies on the image's edge counts too."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_distances(
    target: ArrayLike, predicted: ArrayLike, spacing: float | Sequence[float] = 1.0
) -> tuple[np.ndarray, np.ndarray] | Undefined:
    """Distance of each boundary cell of the target to the prediction's boundary, and the other way round.

    spacing: the size of a cell along each axis (mm), or one number for all. Distances are Euclidean, between
    centres of cells. Undefined when a mask is empty: it has no boundary.
    """
    target, predicted = _masks(target, predicted)
    spacing = (
        np.broadcast_to(np.asarray(spacing, dtype=float), (target.ndim,)) if np.ndim(spacing) == 0 else spacing
    )
    if len(spacing) != target.ndim or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise SeminarError(f"spacing should be {target.ndim} positive numbers, one an axis; got {spacing}")
    empty = [name for name, mask in (("target", target), ("prediction", predicted)) if not mask.any()]
    if empty:
        return Undefined(f"an empty {' and an empty '.join(empty)} has no boundary")
    edges = boundary(target), boundary(predicted)
    # the transform gives every cell its distance to the nearest zero, so the other boundary is set to zero
    to_target, to_predicted = (ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    return to_predicted[edges[0]], to_target[edges[1]]


def hd95(
    target: ArrayLike, predicted: ArrayLike, spacing: float | Sequence[float] = 1.0, percentile: float = 95.0
) -> float:
    """95th percentile Hausdorff distance, in units of `spacing`: the larger of the two directed percentiles.

    Some libraries (MedPy) pool both directions before the percentile, which is never larger.
    `percentile=100` is the plain Hausdorff distance. Undefined when a mask is empty.
    """
    if not 0 <= percentile <= 100:
        raise SeminarError(f"a percentile lies in [0, 100], got {percentile}")
    found = surface_distances(target, predicted, spacing)
    if isinstance(found, Undefined):
        return found
    return float(max(np.percentile(distances, percentile) for distances in found))


def mean_surface_distance(
    target: ArrayLike, predicted: ArrayLike, spacing: float | Sequence[float] = 1.0
) -> float:
    """Average symmetric surface distance (ASSD): the mean over the cells of both boundaries, both ways.

    In units of `spacing`; Undefined when a mask is empty.
    """
    found = surface_distances(target, predicted, spacing)
    return found if isinstance(found, Undefined) else float(np.concatenate(found).mean())
