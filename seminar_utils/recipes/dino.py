"""DINO on unlabelled images (lesson 05): what ships is the teacher's backbone, judged frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..evaluation.intervals import bootstrap_interval
from ..evaluation.metrics import balanced_accuracy
from ..evaluation.probes import features, fit_linear, knn_probabilities
from ..pretraining.crops import MultiCrop
from ..pretraining.dino import DINO
from ..pretraining.dino_training import DINOConfig, fit_dino
from .base import Measured, Recipe, Sets, first

BANK, WATCHED = 2000, 500  # labelled images that vote at the end; validation images watched after each epoch


@dataclass(frozen=True)
class SelfDistilled(Recipe):
    """An encoder trained without labels by `fit_dino`; `head` and `loss` are options of DINOHead and DINOLoss."""

    out_dim: int = 128
    head: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """Train student and teacher; the model is left with the teacher's weights."""
        dino = DINO(model, model.num_features, self.out_dim, self.head, **self.loss)
        options = {"size": self.size, "checkpoint": resume, "progress": progress, "evaluate": self.watch(sets)}
        history = fit_dino(dino, sets["train"], self.config, **options)
        model.load_state_dict(dino.teacher.backbone.state_dict())
        return history

    def watch(self, sets: Sets) -> Callable[[nn.Module], dict[str, float]]:
        """kNN on the validation split, for the history: nothing is chosen by it."""
        bank, val = first(sets["train"], BANK // 2), first(sets["val"], WATCHED)

        def knn(backbone: nn.Module) -> dict[str, float]:
            found, queries = (features(backbone, images, size=self.size) for images in (bank, val))
            probs = knn_probabilities(found, bank.labels, queries, len(val.class_names))
            return {"val_knn_balanced_accuracy": balanced_accuracy(val.labels, probs.argmax(axis=1))}

        return knn

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Balanced accuracy of kNN and of a linear probe on the test split, bootstrap over its images."""
        bank, val, test = first(sets["train"], BANK), sets["val"], sets["test"]
        x, x_val, x_test = (features(model, images, size=self.size) for images in (bank, val, test))
        classes = len(test.class_names)
        probe = fit_linear(x, bank.labels, x_val, val.labels, classes)
        probs = {"knn": knn_probabilities(x, bank.labels, x_test, classes), "linear": probe.probabilities(x_test)}
        metrics, intervals = {}, {}
        for name, p in probs.items():
            found = bootstrap_interval(test.labels, p.argmax(axis=1), statistic=balanced_accuracy)
            metrics[f"{name}_balanced_accuracy"] = found.mean
            intervals[f"{name}_balanced_accuracy"] = [found.low, found.high]
        return metrics, intervals

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The last epoch; beside it the options that are not in the settings of the loop."""
        bank = f"{BANK} labelled training images for kNN and linear probe (fewer if there are fewer)"
        return {
            **super().choice(history),
            "probe": bank,
            "out_dim": self.out_dim,
            "head": self.head,
            "loss": self.loss,
        }

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """One feature vector: there is no classifier."""
        return [[arguments["dim"]]]


# Easy views (no mirror, little jitter), a small rate: with harder ones so short a run drifts to uniform collapse.
CROPS = MultiCrop(
    24,
    16,
    2,
    global_scale=(0.6, 1),
    local_scale=(0.35, 0.6),
    flip=0.0,
    brightness=0.2,
    contrast=0.2,
    blur=(0, 0, 0),
)
TINY = DINOConfig(
    epochs=40,
    batch_size=32,
    lr=8e-3,
    warmup=1,
    final_weight_decay=0.04,
    momentum=0.99,
    freeze_last_layer=0,
    crops=CROPS,
)
ENCODER = {
    "num_classes": 0,
    "dim": 64,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "conv_stem": True,
    "interpolation": "dino",
}
HEAD = {"hidden_dim": 128, "bottleneck_dim": 32, "use_bn": True}
# X-rays carry more than phantoms do: harder views, with more jitter than any two machines differ by, and a little
# blur, are still agreed about. Chosen by kNN on validation images, plain ones and some of altered brightness.
XRAY_CROPS = replace(
    CROPS,
    local_size=12,
    global_scale=(0.5, 1),
    local_scale=(0.2, 0.5),
    flip=0.5,
    brightness=0.6,
    contrast=0.6,
    blur=(0.5, 0.1, 0.3),
)
OPTIONS = {"out_dim": 64, "head": HEAD, "loss": {"teacher_temp": 0.02, "warmup_teacher_temp": 0.02}}

DINO_RECIPES: dict[str, Recipe] = {
    "dino_tiny-phantoms": SelfDistilled(
        "vit_tiny", "phantoms", 32, TINY, ENCODER, {"scanner": "AB", "n": 3000}, **OPTIONS
    ),
    "dino_tiny-pneumoniamnist": SelfDistilled(
        "vit_tiny",
        "pneumoniamnist",
        28,
        replace(TINY, epochs=50, crops=XRAY_CROPS),
        {**ENCODER, "img_size": 28, "dim": 96},
        {},
        **{**OPTIONS, "out_dim": 256},
    ),
}
