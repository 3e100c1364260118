"""Masked autoencoders trained without labels (lesson 06), on phantoms and on chest X-rays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import ImageSet
from ..evaluation.intervals import Interval, bootstrap_interval
from ..evaluation.metrics import balanced_accuracy
from ..evaluation.probes import features, fit_linear, knn_probabilities
from ..models.mae import MaskedAutoencoder, encoder_of, patch_statistics, patchify
from ..pretraining.mae_training import MAEConfig, fit_mae
from .base import Measured, Recipe, Sets

MASK_RATIO = 0.75


class MAEPretraining(Recipe):
    """A masked autoencoder; the labels of the training split are never looked at while it learns."""

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The plain loop of `fit_mae`; the model is left with the weights of the last epoch."""
        return fit_mae(model, sets["train"], self.config, checkpoint=resume, progress=progress)

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """On the test split: the error in hidden patches, and what kNN and a linear probe read (all labels).

        Intervals are bootstrapped over the test images. MAE is never to be judged by kNN alone.
        """
        found = {"hidden_patch_error": bootstrap_interval(hidden_errors(model, sets["test"]), statistic=np.mean)}
        encoder, classes = encoder_of(model).eval(), len(sets["test"].class_names)
        parts = {name: (features(encoder, s, size=self.size), s.labels) for name, s in sets.items()}
        probe = fit_linear(*parts["train"], *parts["val"], classes)
        test, labels = parts["test"]
        answers = {"knn": knn_probabilities(*parts["train"], test, classes), "linear": probe.probabilities(test)}
        for name, probs in answers.items():
            found[f"{name}_balanced_accuracy"] = bootstrap_interval(
                labels, probs.argmax(axis=1), statistic=balanced_accuracy
            )
        return _measured(found)

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The last epoch; labels came in only to score it."""
        return {"selection": "the last epoch; no label was used in training; the test split was scored once"}

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """A loss, predicted patches (B, N, p * p * C) and the mask (B, N)."""
        p = arguments["patch_size"]
        patches = (self.size // p) ** 2
        return [[], [patches, p * p * arguments["in_chans"]], [patches]]


@torch.inference_mode()
def hidden_errors(model: MaskedAutoencoder, images: ImageSet, seed: int = 0) -> np.ndarray:
    """Mean squared error of every image's hidden patches at mask ratio .75, in the loss's own units (N,).

    The masks are fixed by `seed`. With normalised pixels a patch painted in one grey costs nearly 1.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for x, _ in images.loader(256, size=model.img_size):
        noise = torch.rand(len(x), model.grid**2, generator=generator)
        _, pred, mask = model(x, MASK_RATIO, noise)
        target = patchify(x, model.patch_size)
        if model.norm_pix_loss:
            mean, std = patch_statistics(target)
            target = (target - mean) / std
        found.append(_masked_mean((pred - target).square().mean(dim=-1), mask))
    return torch.cat(found).numpy()


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of error (B, N) over the hidden patches of each image (B,)."""
    return (error * mask).sum(dim=1) / mask.sum(dim=1)


def _measured(found: dict[str, Interval]) -> Measured:
    return {k: v.mean for k, v in found.items()}, {k: [v.low, v.high] for k, v in found.items()}


# The paper's recipe with a higher rate and milder crops: a small network, small pictures, minutes instead of days.
# Epochs: three minutes of a quiet thread on phantoms, twenty on X-rays, where fewer left kNN a little short.
SMALL_MAE = {"batch_size": 64, "lr": 4e-3, "warmup": 2, "scale": (0.4, 1.0)}

MAE_RECIPES: dict[str, Recipe] = {
    "mae_tiny-phantoms": MAEPretraining(
        "mae_tiny",
        "phantoms",
        32,
        MAEConfig(epochs=20, **SMALL_MAE),
        {"img_size": 32, "patch_size": 4},
        {"scanner": "AB", "n": 6000},
    ),
    "mae_tiny-pneumoniamnist": MAEPretraining(
        "mae_tiny", "pneumoniamnist", 28, MAEConfig(epochs=120, **SMALL_MAE), {"img_size": 28, "patch_size": 4}
    ),
}
