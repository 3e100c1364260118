"""Exercises of lesson 08: a CT window, MedSAM's stretch, looser boxes, and LoRA's forward pass."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Case, Exercise

LESSON = "08_medical_foundation_models"


def ct_window(hounsfield: np.ndarray, level: float, width: float) -> np.ndarray:
    """Cut to the window [level - width / 2, level + width / 2], then stretch what is left to [0, 255].

    The lowest value that is left becomes 0 and the highest 255; a constant image becomes 0. As MedSAM does (Ma et
    al. 2024, arXiv 2304.12306, Methods), before its numbers become whole.
    """
    cut = np.clip(np.asarray(hounsfield, np.float64), level - width / 2, level + width / 2)
    return (cut - cut.min()) / (np.ptp(cut) or 1.0) * 255.0


def loosen_box(boxes: Tensor, share: float, size: tuple[int, int]) -> Tensor:
    """Move every side of the boxes (N, 4) outwards by `share` of the box's own width or height, inside the image.

    Boxes are (x0, y0, x1, y1), the first and the last column and row they hold; size is (height, width). A
    negative share cuts into the object.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + 1  # (N, 2): width, height
    first, last = boxes[:, :2] - share * sides, boxes[:, 2:] + share * sides
    limit = boxes.new_tensor([size[1] - 1, size[0] - 1])
    return torch.cat([first, last], dim=1).clamp(min=0).minimum(limit.repeat(2))


def lora_forward(x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """h = W x + b + (alpha / r) B A x, for rows x (..., in): (..., out). Hu et al. 2021 (arXiv 2106.09685, 4.1).

    weight (out, in), bias (out,), A (r, in), B (out, r); A and B are what is trained.
    """
    return F.linear(x, weight, bias) + alpha / len(A) * F.linear(F.linear(x, A), B)


def _volume(values: object, level: float, width: float) -> Case:
    return Case(lambda: {"hounsfield": np.array(values), "level": level, "width": width})


def ct_window_cases() -> list[Case]:
    """Air, water, bone; another level; a slice that does not fill the window; a constant one."""
    random = np.random.default_rng(0).integers(-1000, 1500, (6, 5)).astype(np.int16)
    return [
        _volume([[-1000, 0], [40, 2000]], 40, 400),
        _volume([[-1000, -900], [-500, 40]], -600, 1500),
        _volume(random, 40, 400),
        _volume([[20, 40], [60, 50]], 40, 400),
        _volume([[-1000, -1000], [-1000, -1000]], 40, 400),
    ]


def min_max_cases() -> list[Case]:
    """One image of three pixels; two of different range; colour; a constant one."""

    def make(shape: tuple[int, ...], flat: bool = False) -> Case:
        def images() -> dict[str, Tensor]:
            x = torch.rand(shape) * 200 + 20
            x[0] = x[0] / 4  # a dark one: another range than its neighbours
            if shape[1] > 1:
                x[:, 0] = x[:, 0] * 0.5  # the channels differ, too
            if flat:
                x[-1] = 7.0
            return {"x": x}

        return Case(images)

    read = Case(lambda: {"x": torch.tensor([[[[20.0, 40.0, 60.0]]]])})
    return [read, make((2, 1, 3, 4)), make((2, 3, 4, 4)), make((3, 1, 2, 2), flat=True)]


def _boxes(boxes: list[list[float]], share: float, size: tuple[int, int]) -> Case:
    return Case(lambda: {"boxes": torch.tensor(boxes), "share": share, "size": size})


def loosen_box_cases() -> list[Case]:
    """A box that is no square, in the middle; a border; a tighter one; several in a wide image."""
    return [
        _boxes([[20.0, 20.0, 29.0, 39.0]], 0.1, (64, 64)),
        _boxes([[20.0, 20.0, 29.0, 39.0]], -0.2, (64, 64)),
        _boxes([[0.0, 5.0, 9.0, 14.0], [50.0, 50.0, 62.0, 60.0]], 0.6, (64, 64)),
        _boxes([[10.0, 4.0, 29.0, 23.0], [70.0, 2.0, 95.0, 28.0]], 0.4, (32, 100)),
    ]


def lora_forward_cases() -> list[Case]:
    """Numbers that can be read; then rank and width that differ, tokens, and the start, where B is zero."""
    read = Case(
        lambda: {
            "x": torch.tensor([[1.0, 2.0]]),
            "weight": torch.eye(2),
            "bias": torch.tensor([0.0, 1.0]),
            "A": torch.tensor([[1.0, 1.0]]),
            "B": torch.tensor([[10.0], [0.0]]),
            "alpha": 2.0,
        }
    )

    def make(shape: tuple[int, ...], out: int, rank: int, alpha: float, start: bool = False) -> Case:
        def arguments() -> dict[str, object]:
            parts = {
                "x": torch.randn(*shape),
                "weight": torch.randn(out, shape[-1]),
                "bias": torch.randn(out),
                "A": torch.randn(rank, shape[-1]),
                "B": torch.zeros(out, rank) if start else torch.randn(out, rank),
            }
            return {**parts, "alpha": alpha}

        return Case(arguments)

    return [
        read,
        make((3, 4), 5, 2, 1.0),
        make((2, 7, 6), 6, 3, 6.0),
        make((1, 5), 15, 4, 4.0),
        make((3, 4), 5, 2, 8.0, start=True),
    ]


EXERCISES = (
    Exercise(
        id="medical.ct_window",
        lesson=LESSON,
        title="Hounsfield units through a window",
        difficulty=1,
        minutes=6,
        implementation=f"{__name__}:ct_window",
        cases=ct_window_cases,
        hints=(
            "Two steps: cut (np.clip), then stretch what is LEFT, from its lowest to its highest value. "
            "Where does a window of level 40 and width 400 begin and end?",
            "It goes from level - width / 2 to level + width / 2. After the cut the lowest value present becomes "
            "0 and the highest 255. What if they are equal?",
            "cut = np.clip(hounsfield.astype(float), level - width / 2, level + width / 2); "
            "(cut - cut.min()) / (np.ptp(cut) or 1.0) * 255",
        ),
    ),
    Exercise(
        id="medical.min_max",
        lesson=LESSON,
        title="each image stretched to [0, 1]",
        difficulty=1,
        minutes=5,
        implementation="seminar_utils.models.sam_transforms:min_max",
        cases=min_max_cases,
        hints=(
            "Every image has its own lowest and its own highest value, over its channels and pixels together.",
            "x.amin(dim=(-3, -2, -1), keepdim=True) keeps the shape that can be subtracted. A constant image must "
            "not divide by zero.",
            "(x - low) / (high - low).clamp(min=1e-8)",
        ),
    ),
    Exercise(
        id="medical.loosen_box",
        lesson=LESSON,
        title="a box drawn less tightly",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:loosen_box",
        cases=loosen_box_cases,
        hints=(
            "Width and height are moved by their own shares: a tall box gets taller than it gets wider.",
            "A box holds its last column too, so its width is x1 - x0 + 1. The last column of the image is "
            "width - 1, and size is (height, width).",
            "sides = boxes[:, 2:] - boxes[:, :2] + 1; subtract share * sides from the first corner, add it to the "
            "second; clamp x to [0, size[1] - 1] and y to [0, size[0] - 1].",
        ),
    ),
    Exercise(
        id="medical.lora_forward",
        lesson=LESSON,
        title="LoRA: a frozen layer and its correction",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:lora_forward",
        cases=lora_forward_cases,
        gradient_to=("x", "A", "B"),
        hints=(
            "The old layer first, unchanged: F.linear(x, weight, bias). Then add the correction, without a bias.",
            "Rows are multiplied from the right: A x is F.linear(x, A), of width r. The correction is scaled by "
            "alpha / r, and r is the number of rows of A.",
            "F.linear(x, weight, bias) + alpha / A.shape[0] * F.linear(F.linear(x, A), B)",
        ),
    ),
)
