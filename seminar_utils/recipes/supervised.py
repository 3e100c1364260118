"""Classifiers trained with labels: the small ResNets, ViTs and Swins (lessons 01, 02, 03 and 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.intervals import bootstrap_interval
from ..evaluation.metrics import accuracy, balanced_accuracy, expected_calibration_error
from ..pretraining.supervised import TrainConfig, fit, predict
from .base import Measured, Recipe, Sets


def random_shift(x: Tensor, reach: int = 2) -> Tensor:
    """Move the whole batch (B, C, H, W) by up to `reach` pixels each way: patients never stand alike."""
    down, right = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4, mode="replicate")  # (B, C, H + 2 reach, W + 2 reach)
    return padded[..., down : down + height, right : right + width]  # (B, C, H, W)


def random_turn(x: Tensor) -> Tensor:
    """`random_shift`, then the batch (B, C, H, H) mirrored or turned: a cell on a slide has no upper side."""
    x = random_shift(x)
    turns, mirrored = torch.randint(0, 4, (1,)).item(), torch.randint(0, 2, (1,)).item()
    return torch.rot90(x.flip(3) if mirrored else x, turns, (2, 3))  # (B, C, H, H)


@dataclass(frozen=True)
class Supervised(Recipe):
    """A classifier trained by `fit`; `augment` is a function of the batch."""

    augment: Callable[[Tensor], Tensor] | None = None

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The plain loop; the model is left with its best weights on the validation split."""
        options = {"size": self.size, "augment": self.augment, "checkpoint": resume, "progress": progress}
        return fit(model, sets["train"], sets["val"], self.config, **options)

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Accuracy, balanced accuracy and ECE on the test split, with bootstrap intervals over its images."""
        logits, labels = predict(model, sets["test"].loader(256, size=self.size))
        probs, labels = logits.softmax(dim=1).numpy(), labels.numpy()
        by_name = {
            "accuracy": lambda p, y: accuracy(y, p.argmax(1)),
            "balanced_accuracy": lambda p, y: balanced_accuracy(y, p.argmax(1)),
            "ece": lambda p, y: expected_calibration_error(p, y),
        }
        found = {key: bootstrap_interval(probs, labels, statistic=function) for key, function in by_name.items()}
        metrics = {key: interval.mean for key, interval in found.items()}
        return metrics, {key: [interval.low, interval.high] for key, interval in found.items()}

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The epoch that was best on the validation split."""
        best = max(history, key=lambda row: row["val_balanced_accuracy"])
        return {
            "val_balanced_accuracy": best["val_balanced_accuracy"],
            "best_epoch": best["epoch"],
            "selection": "best epoch on the validation split; the test split was scored once",
        }


class Unshipped(Supervised):
    """A classifier whose weights do not ship: under which terms they could is not ours to say."""

    def extras(self, sets: Sets) -> dict[str, Any]:
        """No licence of ours."""
        return {"licence": "none of ours: trained for your own use, does not ship; see data_licence"}


PHANTOMS = {"scanner": "AB"}
SMALL_CNN = TrainConfig(epochs=12, lr=4e-3, batch_size=64, label_smoothing=0.0)  # stays calibrated at home
SMALL_VIT = TrainConfig(epochs=40, lr=1e-3, batch_size=64, warmup=3, label_smoothing=0.0)
FEW_IMAGES = TrainConfig(epochs=40, lr=4e-3, batch_size=32, warmup=3, label_smoothing=0.0)  # WBC: 180 cells
SMALL_SWIN = replace(SMALL_VIT, epochs=30)  # the ViT's recipe, not tuned again; fewer epochs, as time allowed

SUPERVISED: dict[str, Recipe] = {
    "resnet_small-phantoms": Supervised(
        "resnet_small", "phantoms", 32, SMALL_CNN, {"num_classes": 6}, {**PHANTOMS, "n": 4000}
    ),
    "vit_tiny-phantoms": Supervised(
        "vit_tiny", "phantoms", 32, SMALL_VIT, {"num_classes": 6}, {**PHANTOMS, "n": 6000}, random_shift
    ),
    "resnet_small-pneumoniamnist": Supervised(
        "resnet_small", "pneumoniamnist", 28, SMALL_CNN, {"num_classes": 2}, {}, random_shift
    ),
    "resnet_small-wbc": Unshipped(  # d1 is under GPL-3.0
        "resnet_small", "wbc", 48, FEW_IMAGES, {"num_classes": 4}, {"domain": "d1"}, random_turn
    ),
    "vit_tiny-pneumoniamnist": Supervised(
        "vit_tiny", "pneumoniamnist", 28, SMALL_VIT, {"num_classes": 2, "img_size": 28}, {}, random_shift
    ),
    "swin_tiny-phantoms": Supervised(
        "swin_tiny", "phantoms", 32, SMALL_SWIN, {"num_classes": 6}, {**PHANTOMS, "n": 6000}, random_shift
    ),
    "swin_tiny-pneumoniamnist": Supervised(
        "swin_tiny", "pneumoniamnist", 28, replace(SMALL_SWIN, epochs=12), {"num_classes": 2}, {}, random_shift
    ),
}
