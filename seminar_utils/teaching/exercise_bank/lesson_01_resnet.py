"""Exercises of lesson 01: the parts of a residual network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Case, Exercise


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Side of a convolution's output: floor((size + 2 padding - kernel) / stride) + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Normalise x (B, C, H, W) per channel by the batch's mean and biased variance, then scale and shift.

    gamma, beta: (C,). Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1.
    """
    mean = x.mean(dim=(0, 2, 3), keepdim=True)  # (1, C, 1, 1)
    var = x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)  # (1, C, 1, 1)
    normalised = (x - mean) / torch.sqrt(var + eps)  # (B, C, H, W)
    return gamma.view(1, -1, 1, 1) * normalised + beta.view(1, -1, 1, 1)


def residual(x: Tensor, branch: Callable[[Tensor], Tensor], shortcut: Callable[[Tensor], Tensor]) -> Tensor:
    """One residual unit, relu(branch(x) + shortcut(x)); He et al. 2015 (arXiv 1512.03385), equations 1, 2."""
    return torch.relu(branch(x) + shortcut(x))


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """Pixels (one side) that one output value sees through layers of (kernel, stride), first layer first."""
    field, jump = 1, 1  # jump: distance in input pixels between neighbouring outputs
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def output_size_cases() -> list[Case]:
    """From 'same' convolutions to the stem of ResNet-50 and a stride that does not divide."""
    sizes = [
        (8, 3, 1, 1),
        (8, 3, 1, 0),
        (8, 2, 2, 0),
        (7, 3, 2, 1),
        (8, 3, 2, 1),
        (28, 5, 3, 2),
        (224, 7, 2, 3),
    ]
    names = ("size", "kernel", "stride", "padding")
    return [Case(lambda values=values: dict(zip(names, values))) for values in sizes]


def _to_normalise(shape: tuple[int, ...], eps: float) -> Case:
    def make() -> dict[str, object]:
        channels = shape[1]
        x = 2 * torch.randn(shape) + torch.arange(float(channels)).view(1, -1, 1, 1)
        gamma, beta = torch.arange(1.0, channels + 1), torch.arange(float(channels)) - 1
        return {"x": x, "gamma": gamma, "beta": beta, "eps": eps}

    return Case(make)


def _four_numbers() -> dict[str, object]:
    x = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(2, 1, 1, 2)
    return {"x": x, "gamma": torch.ones(1), "beta": torch.zeros(1), "eps": 1e-5}


def batch_norm_cases() -> list[Case]:
    """Four numbers; C = W, where a wrong broadcast goes unseen; a large eps; a batch of one."""
    shapes = [((2, 2, 1, 2), 1e-5), ((3, 2, 2, 2), 0.5), ((4, 3, 2, 5), 1e-5), ((1, 3, 4, 4), 1e-5)]
    return [Case(_four_numbers), *(_to_normalise(shape, eps) for shape, eps in shapes)]


def minus_half(x: Tensor) -> Tensor:
    """A branch whose effect can be followed by hand."""
    return -0.5 * x


def _with_projection() -> dict[str, object]:
    branch, shortcut = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(2, 4, 1, stride=2)
    return {"x": torch.randn(2, 2, 6, 6), "branch": branch, "shortcut": shortcut}


def residual_cases() -> list[Case]:
    """By hand with the identity, a convolution, then a unit that changes size and needs a projection."""
    numbers = torch.tensor([-2.0, -1.0, 1.0, 2.0]).view(1, 1, 1, 4)
    return [
        Case(lambda: {"x": numbers.clone(), "branch": minus_half, "shortcut": nn.Identity()}),
        Case(
            lambda: {
                "x": torch.randn(2, 3, 4, 4),
                "branch": nn.Conv2d(3, 3, 3, padding=1),
                "shortcut": nn.Identity(),
            }
        ),
        Case(_with_projection),
    ]


def receptive_field_cases() -> list[Case]:
    """One layer, two, a stride before and after, the first layers of ResNet-18, no layer."""
    lists = [
        [(3, 1)],
        [(3, 1), (3, 1)],
        [(3, 2), (3, 1)],
        [(3, 1), (3, 2)],
        [(7, 2), (3, 2), (3, 1), (3, 1)],
        [],
    ]
    return [Case(lambda layers=layers: {"layers": list(layers)}) for layers in lists]


EXERCISES = (
    Exercise(
        id="resnet.output_size",
        lesson="01_resnet",
        title="the size of a convolution's output",
        difficulty=1,
        minutes=4,
        implementation=f"{__name__}:output_size",
        cases=output_size_cases,
        hints=(
            "Slide a kernel of 3 over 8 pixels with a pencil: how many places can its left edge take?",
            "Padding is added on both sides, and a step that does not fit any more is dropped.",
            "floor((size + 2 * padding - kernel) / stride) + 1; `//` is the floor, and gives an int.",
        ),
    ),
    Exercise(
        id="resnet.batch_norm",
        lesson="01_resnet",
        title="batch normalisation in four lines",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:batch_norm",
        cases=batch_norm_cases,
        gradient_to=("x", "gamma", "beta"),
        hints=(
            "One mean and one variance per CHANNEL: which three axes of (B, C, H, W) are averaged away?",
            "Keep the averaged axes (keepdim=True), so that (1, C, 1, 1) meets (B, C, H, W); "
            "gamma and beta need the same shape. Is your variance divided by n or by n - 1?",
            "x.var(dim=(0, 2, 3), keepdim=True, unbiased=False); divide by sqrt(var + eps); "
            "gamma.view(1, -1, 1, 1).",
        ),
    ),
    Exercise(
        id="resnet.residual",
        lesson="01_resnet",
        title="one residual unit",
        difficulty=1,
        minutes=4,
        implementation=f"{__name__}:residual",
        cases=residual_cases,
        gradient_to=("x",),
        tolerance=1e-5,
        hints=(
            "Look at figure 2 of the paper: two ways lead from x to the plus sign. Where does the relu stand?",
            "Add first, then relu. The shortcut is a function too: it may change size and channels.",
            "torch.relu(branch(x) + shortcut(x)). `out += ...` on the result of an identity shortcut "
            "writes into x itself.",
        ),
    ),
    Exercise(
        id="resnet.receptive_field",
        lesson="01_resnet",
        title="how far one output value sees",
        difficulty=3,
        minutes=12,
        implementation=f"{__name__}:receptive_field",
        cases=receptive_field_cases,
        hints=(
            "Two 3x3 layers see 5 pixels, not 6: each layer adds kernel - 1. "
            "What changes once a layer has stride 2?",
            "After a stride of 2, neighbouring values lie two input pixels apart: keep that distance as a "
            "second number.",
            "Start with field = 1 and jump = 1; per layer: field += (kernel - 1) * jump, THEN jump *= stride.",
        ),
    ),
)
