"""A tiny SAM trained on phantoms (lesson 07): in each it is shown two things, the lesion and the organ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data import load
from ..data.dataset import ImageSet
from ..evaluation.intervals import bootstrap_interval
from ..evaluation.prompted import dice_by_prompt
from ..models import create_model
from ..pretraining.sam_training import Objects, SamConfig, fit_sam, make_objects
from .base import Measured, Recipe, Sets

WATCHED, TESTED = 100, 300  # validation images looked at after each epoch; test images at the end


def lesion_and_organ(images: ImageSet) -> np.ndarray:
    """The masks of both (N, 2, H, W): a point on the lesion lies in either, which makes it ambiguous."""
    return np.stack([images.masks == 2, images.masks > 0], axis=1)


def phantom_objects(model: nn.Module, images: ImageSet) -> Objects:
    """Phantoms with both objects, in the model's frame."""
    return make_objects(model, images.images, lesion_and_organ(images))


class PromptableTraining(Recipe):
    """A promptable model on phantoms, judged by Dice of boxes and points beside the filled box."""

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The plain loop of `fit_sam`; the model is left with the weights of the last epoch."""
        val = sets["val"].subset(np.arange(min(WATCHED, len(sets["val"]))))

        def watch(model: nn.Module) -> dict[str, float]:
            scores = dice_by_prompt(model, val.images, val.masks == 2)
            return {f"val_lesion_dice_{name}": float(scores[name].mean()) for name in ("box", "point")}

        options = {"evaluate": watch, "checkpoint": resume, "progress": progress}
        return fit_sam(model, phantom_objects(model, sets["train"]), self.config, **options)

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Dice of lesion and organ on scanners A and B, and on the unseen C (0.7); bootstrap over the images."""
        found, strange = {}, load("phantoms", "test", scanner="C", strength=0.7)
        for scanner, images in {"AB": sets["test"], "C": strange}.items():
            images = images.subset(np.arange(min(TESTED, len(images))))
            for place, what in enumerate(("lesion", "organ")):
                masks = lesion_and_organ(images)[:, place]
                for prompt, scores in dice_by_prompt(model, images.images, masks).items():
                    name = f"{what}_dice_{prompt.replace(' ', '_')}_{scanner}"
                    found[name] = bootstrap_interval(scores, statistic=np.mean)
        return {k: v.mean for k, v in found.items()}, {k: [v.low, v.high] for k, v in found.items()}

    def extras(self, sets: Sets) -> dict[str, Any]:
        """What reads an image alone: masks need prompts, too."""
        return {"method": "encode"}

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """The embedding of an image, which the decoder then reads with each prompt."""
        encoder = create_model("sam_tiny", **arguments).image_encoder
        side = self.size // encoder.stride
        return [[encoder.out_chans, side, side]]


ON_PHANTOMS = PromptableTraining(
    "sam_tiny",
    "phantoms",
    64,
    SamConfig(epochs=12, batch_size=16, intensity=0.4),
    {"img_size": 64},
    {"scanner": "AB", "n": 3000},
)

SAM_RECIPES: dict[str, Recipe] = {
    "sam_tiny-phantoms": ON_PHANTOMS,
    # The control of lesson 07 and the specialist of lesson 08: images of the two scanners as they are.
    "sam_tiny_plain-phantoms": replace(ON_PHANTOMS, config=replace(ON_PHANTOMS.config, intensity=0.0)),
}
