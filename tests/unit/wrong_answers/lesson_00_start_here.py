"""Wrong answers to the exercises of lesson 00_start_here: the mistakes that students really make."""

import math

import numpy as np
import torch

from seminar_utils.teaching.exercise_bank import find_exercise


def channels_by_reshape(images):
    n, h, w, c = images.shape
    return torch.from_numpy(images).reshape(n, c, h, w).float() / 255


def plain_accuracy(labels, predictions):
    return float((labels == predictions).mean())


def precision(labels, predictions):
    return float(np.mean([(labels[predictions == c] == c).mean() for c in np.unique(predictions)]))


def absent_counts_as_zero(labels, predictions):
    k = max(labels.max(), predictions.max()) + 1
    return float(np.mean([(predictions[labels == c] == c).mean() if (labels == c).any() else 0 for c in range(k)]))


def bootstrap(quantiles=(0.025, 0.975), replace=True):
    def interval(correct, n_boot, seed):
        rng = np.random.default_rng(seed)
        n = len(correct)
        means = [rng.choice(correct, n, replace=replace).mean() for _ in range(n_boot)]
        return tuple(np.quantile(means, quantiles))

    return interval


def normal_interval(correct, n_boot, seed):
    half = 1.96 * correct.std() / math.sqrt(len(correct))
    return correct.mean() - half, correct.mean() + half


def spread_not_quantiles(correct, n_boot, seed):
    rng = np.random.default_rng(seed)
    means = correct[rng.integers(0, len(correct), (n_boot, len(correct)))].mean(1)
    return float(means.mean() - means.std()), float(means.mean() + means.std())


WRONG = {
    "start.to_float": {
        "forgot to divide": lambda i: torch.from_numpy(i).permute(0, 3, 1, 2).float(),
        "reshape for permute": channels_by_reshape,
        "height and width swapped": lambda i: torch.from_numpy(i).permute(0, 3, 2, 1).float() / 255,
        "divided by 256": lambda i: torch.from_numpy(i).permute(0, 3, 1, 2).float() / 256,
        "double precision": lambda i: torch.from_numpy(i / 255.0).permute(0, 3, 1, 2),
        "numpy": lambda i: (i.transpose(0, 3, 1, 2) / 255).astype(np.float32),
    },
    "start.balanced_accuracy": {
        "plain accuracy": plain_accuracy,
        "precision": precision,
        "absent classes count": absent_counts_as_zero,
        "per cent": lambda y, p: 100 * find_exercise("start.balanced_accuracy").reference(y, p),
    },
    "start.accuracy_interval": {
        "90 per cent": bootstrap((0.05, 0.95)),
        "without replacement": bootstrap(replace=False),
        "normal approximation": normal_interval,
        "one standard deviation": spread_not_quantiles,
        "high before low": bootstrap((0.975, 0.025)),
    },
}

RIGHT = {
    "start.to_float": lambda i: torch.tensor(np.moveaxis(i, -1, 1).copy()).float().div(255),
    "start.accuracy_interval": bootstrap(),
}
