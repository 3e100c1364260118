"""Segmentation networks trained with masks: lesions of phantoms, nuclei (lesson 11, part 10)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data.dataset import ImageSet
from ..evaluation.intervals import bootstrap_interval
from ..pretraining.masks import MaskSet, dice_of_each, judge_masks, mask_loss
from ..pretraining.supervised import TrainConfig, fit, predict
from .base import Measured, Recipe, Sets, first

WATCHED, TESTED = 200, 500  # at most: validation images after each epoch, test images at the end
LABEL = {"phantoms": 2, "nuclei": 1}  # what the network looks for: the lesion, a nucleus


def mask_set(images: ImageSet, turn: bool = False) -> MaskSet:
    """Images of a set of `LABEL` with the masks of what is looked for."""
    return MaskSet(images, lambda masks: masks == LABEL[images.name], turn)


@dataclass(frozen=True)
class Segmentation(Recipe):
    """A network that answers at every pixel; `turn` mirrors and turns the training batches."""

    turn: bool = False

    def arguments(self, sets: Sets) -> dict[str, Any]:
        """One channel: colours become grey, so that stains differ in brightness only."""
        return {**self.model_args, "in_chans": 1}

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The plain loop; the model is left with its best weights on the validation split."""
        options = {"size": self.size, "objective": mask_loss, "judge": judge_masks, "progress": progress}
        train, val = mask_set(sets["train"], self.turn), mask_set(first(sets["val"], WATCHED))
        return fit(model, train, val, self.config, checkpoint=resume, **options)

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Mean Dice over the test images, with a bootstrap interval over them."""
        test = mask_set(first(sets["test"], TESTED))
        scores = dice_of_each(*predict(model, test.loader(64, size=self.size))).numpy()
        found = bootstrap_interval(scores[~np.isnan(scores)], statistic=np.mean)
        return {"dice": found.mean}, {"dice": [found.low, found.high]}

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The epoch that was best on the validation split."""
        best = max(history, key=lambda row: row["val_dice"])
        said = "best epoch on the validation split; the test split was scored once"
        return {"val_dice": best["val_dice"], "best_epoch": best["epoch"], "selection": said}

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """A logit a pixel."""
        return [[1, self.size, self.size]]


CONFIG = TrainConfig(epochs=12, lr=4e-3, batch_size=16, label_smoothing=0.0)
FEWER = TrainConfig(epochs=20, lr=4e-3, batch_size=16, label_smoothing=0.0)  # 325 images of nuclei
MASK_RECIPES: dict[str, Recipe] = {
    "fcn_small-phantoms": Segmentation("fcn_small", "phantoms", 64, CONFIG, {}, {"scanner": "AB", "n": 2000}),
    "fcn_small-nuclei": Segmentation("fcn_small", "nuclei", 64, FEWER, turn=True),
}
