"""Boxes and points in the pixels of the user's image: checked, and boxes made from masks.

A box is (x0, y0, x1, y1), the first and the last column and row it holds, as SAM and MedSAM were trained with.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..runtime import SeminarError

COVERS = 0.98  # of both sides: from here on a box says nothing about where the object is


def check_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes (B, 4) as float32, if they are (x0, y0, x1, y1) inside an image of `size` (height, width).

    Raises SeminarError for another shape, NaN, corners in the wrong order (with a hint at x, y, width, height),
    and boxes that leave the image. Warns when a box covers the whole image.
    """
    boxes = numbers(boxes, "boxes")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0:
        hint = ": give one box as box[None]" if boxes.shape == (4,) else ""
        raise SeminarError(f"expected boxes (B, 4) as x0, y0, x1, y1, got shape {tuple(boxes.shape)}{hint}")
    height, width = size
    for box in boxes.tolist():
        x0, y0, x1, y1 = box
        if x1 < x0 or y1 < y0:
            raise SeminarError(
                f"a box is (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, got {_short(box)}: if these are x, y, "
                f"width and height, give {_short([x0, y0, x0 + x1, y0 + y1])}"
            )
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise SeminarError(
                f"the box {_short(box)} leaves the image, which is {width} wide and {height} high: boxes are "
                "(x0, y0, x1, y1) in pixels of the original image, not of the resized one"
            )
    covered = (boxes[:, 2:] - boxes[:, :2] + 1) >= COVERS * boxes.new_tensor([width, height])  # (B, 2)
    if covered.all(dim=1).any():
        warnings.warn("a box covers the whole image: it says nothing about where the object is", stacklevel=3)
    return boxes


def check_points(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The points (P, N, 2) as float32, if they are (x, y) inside an image of `size` (height, width).

    (N, 2) is one prompt of N points. Raises SeminarError for another shape, NaN, and points outside the image.
    """
    points = numbers(points, "points")
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape:
        raise SeminarError(f"expected points (P, N, 2) as x, y, got shape {tuple(points.shape)}")
    height, width = size
    outside = (points < 0) | (points > points.new_tensor([width, height]))
    if outside.any():
        point = points[outside.any(dim=2)][0].tolist()
        raise SeminarError(
            f"the point {_short(point)} (x, y) lies outside the image, {width} wide and {height} high"
        )
    return points


def boxes_from_masks(masks: Tensor, grow: Tensor | float = 0) -> Tensor:
    """The tight box around each mask (P, H, W), nonzero inside: (P, 4) in float32.

    grow: pixels to move each side outwards, one number or (P, 4) in the order of the box; the result stays within
    0 and the width or height. Raises SeminarError for an empty mask.
    """
    if masks.ndim != 3:
        raise SeminarError(f"expected masks (P, H, W), got shape {tuple(masks.shape)}")
    _, height, width = masks.shape
    columns, rows = (masks != 0).any(dim=1), (masks != 0).any(dim=2)  # (P, W), (P, H)
    if not columns.any(dim=1).all():
        raise SeminarError(f"mask {int((~columns.any(dim=1)).nonzero()[0])} is empty: there is nothing to box")
    low = torch.stack([columns.int().argmax(dim=1), rows.int().argmax(dim=1)], dim=1)  # (P, 2)
    from_end = torch.stack([columns.flip(1).int().argmax(dim=1), rows.flip(1).int().argmax(dim=1)], dim=1)
    high = torch.tensor([width - 1, height - 1], device=masks.device) - from_end
    grow = torch.as_tensor(grow, dtype=torch.float32, device=masks.device).expand(len(masks), 4)
    limit = grow.new_tensor([width, height])
    return torch.cat([(low - grow[:, :2]).clamp(min=0), (high + grow[:, 2:]).minimum(limit)], dim=1)


def numbers(values: Tensor, name: str) -> Tensor:
    """Whatever holds numbers as a float32 tensor; SeminarError otherwise, and for NaN or infinity."""
    try:
        tensor = torch.as_tensor(values).detach().to(torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeminarError(
            f"expected {name} as numbers in an array, got {type(values).__name__}: {error}"
        ) from error
    if not tensor.isfinite().all():
        raise SeminarError(f"the {name} hold NaN or infinity")
    return tensor


def _short(numbers: list[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"
