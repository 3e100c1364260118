"""Exercises of lesson 00: an image as a tensor, a fair accuracy, and how sure we are of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .base import Case, Exercise


def to_float(images: np.ndarray) -> Tensor:
    """Images uint8 (N, H, W, C) in [0, 255] -> float32 tensor (N, C, H, W) in [0, 1]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
    return x.to(torch.float32) / 255


def accuracy_interval(correct: np.ndarray, n_boot: int, seed: int) -> tuple[float, float]:
    """95% percentile bootstrap interval (low, high) of the accuracy; correct: bool (N,).

    Draw N answers with replacement, `n_boot` times, with numpy's default_rng(seed); take the accuracy of
    each draw; the interval runs from the 2.5% to the 97.5% quantile of these accuracies.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(correct), size=(n_boot, len(correct)))  # (n_boot, N)
    accuracies = correct[rows].mean(axis=1)  # (n_boot,)
    low, high = np.quantile(accuracies, [0.025, 0.975])
    return float(low), float(high)


def _images(n: int, height: int, width: int, channels: int) -> Case:
    size = (n, height, width, channels)
    return Case(lambda: {"images": np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)})


def to_float_cases() -> list[Case]:
    """One pixel, one grey row, a square colour image (reshape looks right there), a batch."""
    ramp = Case(lambda: {"images": np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 3, 1)})
    return [ramp, _images(1, 2, 2, 2), _images(1, 2, 3, 3), _images(4, 5, 4, 3), _images(3, 8, 8, 1)]


def _classes(labels: list[int], predictions: list[int]) -> Case:
    return Case(lambda: {"labels": np.array(labels), "predictions": np.array(predictions)})


def _random_classes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.choice(5, size=200, p=[0.6, 0.2, 0.1, 0.07, 0.03])
    return {"labels": labels, "predictions": np.where(rng.random(200) < 0.7, labels, rng.integers(0, 5, 200))}


def balanced_accuracy_cases() -> list[Case]:
    """A lazy classifier, an absent class, a class only predicted, a long unequal set."""
    return [
        _classes([0, 0, 0, 1], [0, 0, 0, 0]),
        _classes([0, 0, 1], [0, 1, 1]),
        _classes([0, 0, 2], [0, 0, 2]),
        _classes([0, 0, 1, 1], [0, 3, 1, 1]),
        Case(_random_classes),
    ]


def _answers(right: int, n: int, n_boot: int, seed: int) -> Case:
    return Case(lambda: {"correct": np.arange(n) < right, "n_boot": n_boot, "seed": seed})


def accuracy_interval_cases() -> list[Case]:
    """All right, nine of ten (where mean +- 1.96 standard errors leaves [0, 1]), then larger sets."""
    return [
        _answers(5, 5, 200, 0),
        _answers(9, 10, 4000, 0),
        _answers(200, 400, 4000, 0),
        _answers(320, 400, 4000, 3),
    ]


EXERCISES = (
    Exercise(
        id="start.to_float",
        lesson="00_start_here",
        title="from stored images to what a network reads",
        difficulty=1,
        minutes=4,
        implementation=f"{__name__}:to_float",
        cases=to_float_cases,
        tolerance=1e-5,
        hints=(
            "Two things change: where the channels stand, and the range of the numbers. "
            "Moving an axis is not the same as reshaping.",
            "`torch.from_numpy(images).permute(...)` reorders axes: which old axis becomes axis 1?",
            "permute(0, 3, 1, 2), then to torch.float32, then divide by 255.",
        ),
    ),
    Exercise(
        id="start.balanced_accuracy",
        lesson="00_start_here",
        title="accuracy that prevalence cannot buy",
        difficulty=2,
        minutes=8,
        implementation="seminar_utils.evaluation.metrics:balanced_accuracy",
        cases=balanced_accuracy_cases,
        hints=(
            "A classifier that always says 'healthy' should get 1/2 with two classes, however rare the "
            "disease is. What is averaged over what?",
            "For each class c: among the samples whose LABEL is c, the share that was predicted c.",
            "Average `(predictions[labels == c] == c).mean()` over c in np.unique(labels): "
            "a class without a sample has no recall and does not count.",
        ),
    ),
    Exercise(
        id="start.accuracy_interval",
        lesson="00_start_here",
        title="a bootstrap interval for an accuracy",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:accuracy_interval",
        cases=accuracy_interval_cases,
        tolerance=3e-3,
        hints=(
            "Pretend that your test set is the world: draw a new test set of the same size from it, "
            "with replacement, many times. How much does the accuracy vary?",
            "`rng.integers(0, N, size=(n_boot, N))` gives the rows of all the draws at once; index `correct` "
            "with it and average along the right axis.",
            "np.quantile(accuracies, [0.025, 0.975]): 2.5% cut off on each side leave 95%.",
        ),
    ),
)
