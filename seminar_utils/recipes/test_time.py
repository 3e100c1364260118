"""Classifiers prepared for test-time training (lessons 12 and 13), on phantoms of the two known scanners."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..pretraining.joint import JointConfig, fit_joint, rotation_accuracy
from ..pretraining.neighbor_labels import MetaConfig, fit_neighbor_labels
from ..pretraining.supervised import TrainConfig, fit
from .base import Measured, Recipe, Sets
from .supervised import PHANTOMS, SMALL_CNN, Supervised


@dataclass(frozen=True)
class Joint(Supervised):
    """A classifier with a second, self-supervised head, both trained together."""

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The joint loop; the best epoch is chosen by the classifier on the validation split."""
        options = {"size": self.size, "augment": self.augment, "checkpoint": resume, "progress": progress}
        return fit_joint(model, sets["train"], sets["val"], self.config, **options)

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """As a classifier; with a rotation head also how often it is right (chance: 0.25)."""
        metrics, intervals = super().evaluate(model, sets)
        if model.task == "rotation":
            x, _ = sets["test"].torch(size=self.size)
            metrics = {**metrics, "rotation_accuracy": rotation_accuracy(model, x)}
        return metrics, intervals


@dataclass(frozen=True)
class Meta(Supervised):
    """A classifier trained in the plain way (`erm`), then meta-trained with its label network."""

    erm: TrainConfig = SMALL_CNN

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """Two rounds, two resume files; the history is that of the second."""
        options = {"size": self.size, "progress": progress}
        first = replace(self.erm, seed=self.config.seed)
        fit(
            model.backbone,
            sets["train"],
            sets["val"],
            first,
            checkpoint=resume.with_suffix(".erm.pt"),
            augment=self.augment,
            **options,
        )
        return fit_neighbor_labels(model, sets["train"], sets["val"], self.config, checkpoint=resume, **options)

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The last epoch."""
        return Recipe.choice(self, history)

    def extras(self, sets: Sets) -> dict[str, Any]:
        """The settings of the first round."""
        return {"erm_config": {**asdict(self.erm), "seed": self.config.seed}}

    def smoke_sized(self) -> Recipe:
        """Both rounds cut to seconds."""
        small = super().smoke_sized()
        return replace(small, erm=replace(self.erm, epochs=1), config=replace(small.config, steps=2))


JOINT = JointConfig(**asdict(SMALL_CNN))
SIX = {"num_classes": 6}
SMALL_PHANTOMS = {**PHANTOMS, "n": 4000}

TEST_TIME: dict[str, Recipe] = {
    "resnet_small_rotation-phantoms": Joint("resnet_small_rotation", "phantoms", 32, JOINT, SIX, SMALL_PHANTOMS),
    "resnet_small_rotation_gn-phantoms": Joint(
        "resnet_small_rotation", "phantoms", 32, JOINT, {**SIX, "norm": "gn"}, SMALL_PHANTOMS
    ),
    "resnet_small_simclr-phantoms": Joint("resnet_small_simclr", "phantoms", 32, JOINT, SIX, SMALL_PHANTOMS),
    "resnet_small_neighbors-phantoms": Meta(
        "resnet_small_neighbors", "phantoms", 32, MetaConfig(), SIX, SMALL_PHANTOMS
    ),
}
