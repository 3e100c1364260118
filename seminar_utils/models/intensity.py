"""From whatever a scanner or a camera wrote to the 8-bit range that SAM's family was trained on.

The rules are those of MedSAM (Ma et al., Segment anything in medical images, 2024, arXiv 2304.12306, Methods):
CT is cut to a window of Hounsfield units; other intensities are cut to the 0.5 and 99.5 percentiles of what is
above 0; both are stretched to 0..255 over the whole image, or the whole volume.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..runtime import SeminarError

SOFT_TISSUE = (40, 400)  # level and width of the usual abdominal window, in Hounsfield units
PERCENTILES = (0.5, 99.5)
Window = tuple[float, float] | str | None


def window_bounds(values: np.ndarray, window: tuple[float, float] | str) -> tuple[float, float]:
    """Where to cut: window is (level, width), "range" (no cut) or "percentiles" of the values above 0."""
    if isinstance(window, str):
        if window not in ("percentiles", "range"):
            raise SeminarError(f'a window is (level, width), "percentiles" or "range", got {window!r}')
        if window == "range":
            return float(values.min()), float(values.max())
        positive = values[values > 0]
        low, high = map(float, np.percentile(positive, PERCENTILES)) if positive.size else (0.0, 0.0)
        return low if low < high else 0.0, high  # two values only, one of them 0: keep both
    if not isinstance(window, tuple | list) or len(window) != 2 or not window[1] > 0:
        raise SeminarError(f"a window is (level, width) with a width above 0, got {window!r}")
    level, width = map(float, window)
    return level - width / 2, level + width / 2


def rescale(values: np.ndarray, window: tuple[float, float] | str) -> np.ndarray:
    """Cut to the window and stretch what is left to [0, 255], as float64 of the same shape.

    With percentiles, which are above 0, what is 0 ("nothing there") stays 0. Values that are all equal become 0.
    """
    values = np.asarray(values, np.float64)
    cut = np.clip(values, *window_bounds(values, window))
    return (cut - cut.min()) / (np.ptp(cut) or 1.0) * 255.0


def as_array(image: np.ndarray | Tensor) -> np.ndarray:
    """Whatever holds numbers, as an array: tensors of any device, Pillow's images, lists."""
    return np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)


def to_uint8(image: np.ndarray | Tensor, window: Window = None) -> np.ndarray:
    """An image or a volume of numbers as uint8 of the same shape.

    Without a window: integers from 0 to 255 stay, floats in [0, 1] are multiplied by 255, and integers beyond 255
    (16 bits) are cut to percentiles. window: (level, width) for CT in Hounsfield units, e.g. SOFT_TISSUE;
    "percentiles" to ask for these; "range" to stretch the lowest to the highest value. Raises SeminarError for
    what is no image, for NaN, for negative numbers without a window, and for floats beyond [0, 1] without a
    window.
    """
    values = as_array(image)
    if values.dtype.kind not in "uif" or values.size == 0:
        raise SeminarError(f"expected an image of integers or floats, got {values.dtype} of shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SeminarError("the image holds NaN or infinity: replace them, e.g. by 0 (numpy.nan_to_num)")
    if window is None:
        window = _guess(values)
        if window is None:
            return np.round(values * 255.0 if values.dtype.kind == "f" else values).astype(np.uint8)
    return rescale(values, window).astype(np.uint8)  # cut off, as MedSAM does


def _guess(values: np.ndarray) -> str | None:
    """None for 0..255 in integers and [0, 1] in floats, "percentiles" beyond 255; else a question for the user."""
    low, high = values.min(), values.max()
    if low < 0:
        raise SeminarError(
            f"the image has values from {low:.5g} to {high:.5g}: give window=(level, width) if these are "
            f"Hounsfield units (CT), {SOFT_TISSUE} for soft tissue; a normalised image must be given as it was"
        )
    if values.dtype.kind == "f" and high > 1:
        raise SeminarError(
            f"a float image has values in [0, 1], this one goes from {low:.5g} to {high:.5g}: convert with "
            'astype(numpy.uint8) if it holds 0..255, or give window="percentiles"'
        )
    return "percentiles" if high > 255 else None


def read_image(image: np.ndarray | Tensor, in_chans: int, window: Window = None) -> np.ndarray:
    """One image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as uint8 (H, W, in_chans), with in_chans 1 or 3.

    Alpha is dropped, before the range is looked at; grey becomes three equal channels, colour becomes grey by its
    mean. window: see `to_uint8`. Raises SeminarError for other shapes, with a hint when the channels come first.
    """
    values = as_array(image)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        hint = ": move the channels to the end" if first else ""
        raise SeminarError(
            f"expected one image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {np.shape(image)}{hint}"
        )
    pixels = to_uint8(values[..., :3], window)
    if pixels.shape[2] == in_chans:
        return pixels
    if in_chans == 1:
        return np.round(pixels.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(pixels, in_chans, axis=2)
