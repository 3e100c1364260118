"""The small CLIP, trained on the phantoms' captions (lesson 04), and how its zero-shot answers are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import load
from ..data.dataset import ImageSet
from ..data.phantoms import FACTORS
from ..evaluation.intervals import seed_interval
from ..evaluation.metrics import balanced_accuracy
from ..models.clip import CLIP
from ..models.tokenizers import WordTokenizer
from ..models.zero_shot import Tokenizer, zero_shot_classifier
from ..pretraining.clip import ClipTrainConfig, fit_clip
from .base import SEEDS, Measured, Recipe, Sets

TEMPLATES = {
    "place": ("a lesion in the {} of the organ",),
    "tone": ("a {} lesion",),
    "size": ("a {} lesion",),
    "type": ("a {} lesion",),
}
WORDS = {
    **{name: FACTORS[name] for name in TEMPLATES},
    "type": ("round", "elongated", "ring-shaped", "spiculated"),
}


def said_by_captions(images: ImageSet) -> dict[str, np.ndarray]:
    """All that a phantom's caption says, as integers (N,): the four factors and the scanner."""
    scanner = np.unique(images.domains, return_inverse=True)[1]
    return {**{name: images.factors[name] for name in TEMPLATES}, "scanner": scanner}


@torch.no_grad()
def image_features(model: CLIP, x: Tensor, batch_size: int = 256) -> Tensor:
    """Features of length 1 (N, D) of images x (N, C, H, W), in batches."""
    device = model.logit_scale.device
    return torch.cat([model.encode_image(part.to(device), normalize=True) for part in x.split(batch_size)])


def zero_shot_answers(
    model: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    templates: Mapping[str, Sequence[str]] = TEMPLATES,
) -> dict[str, np.ndarray]:
    """factor -> the value that fits best (N,), for image features (N, D) of length 1: no label is used."""
    answers = {}
    for name, prompts in templates.items():
        classes = zero_shot_classifier(model, tokenizer, WORDS[name], prompts)  # (K, D)
        answers[name] = (image @ classes.T).argmax(dim=1).cpu().numpy()
    return answers


def zero_shot_scores(model: CLIP, tokenizer: Tokenizer, images: ImageSet, size: int) -> dict[str, float]:
    """Balanced accuracy of the zero-shot answers to each factor."""
    answers = zero_shot_answers(model, tokenizer, image_features(model, images.torch(size=size)[0]))
    return {name: float(balanced_accuracy(images.factors[name], answer)) for name, answer in answers.items()}


@dataclass(frozen=True)
class CaptionPretraining(Recipe):
    """CLIP on images and captions; the factors, which captions say, serve to find near misses.

    second: the settings of a second round that goes on from the weights of the first.
    """

    second: ClipTrainConfig | None = None

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """The plain loop of `fit_clip`; the validation phantoms' zero-shot scores join the history."""
        tokenizer = self.tokenizer(sets)

        def evaluate(clip: CLIP) -> dict[str, float]:
            scores = zero_shot_scores(clip, tokenizer, sets["val"], self.size)
            return {f"val_{name}": score for name, score in scores.items()}

        options = {"evaluate": evaluate, "progress": progress}
        options |= {"size": self.size, "factors": said_by_captions(sets["train"])}
        history = fit_clip(model, tokenizer, sets["train"], self.config, checkpoint=resume, **options)
        if self.second is None:
            return history
        second, file = replace(self.second, seed=self.config.seed), resume.with_suffix(".second.pt")
        more = fit_clip(model, tokenizer, sets["train"], second, checkpoint=file, **options)
        return history + [{**row, "epoch": row["epoch"] + self.config.epochs} for row in more]

    def smoke_sized(self) -> Recipe:
        """One epoch of each round."""
        small = super().smoke_sized()
        return replace(small, second=self.second and replace(self.second, epochs=1))

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Zero-shot balanced accuracy of each factor: mean over three held-out sets, with its Student interval."""
        tokenizer, runs = self.tokenizer(sets), []
        for seed in SEEDS:
            held_out = load(self.data, "test", n=len(sets["val"]), scanner=self.load_args["scanner"], seed=seed)
            runs.append(zero_shot_scores(model, tokenizer, held_out, self.size))
        found = {name: seed_interval([run[name] for run in runs], bounds=(0, 1)) for name in runs[0]}
        metrics = {f"zero_shot_{name}": interval.mean for name, interval in found.items()}
        return metrics, {f"zero_shot_{name}": [i.low, i.high] for name, i in found.items()}

    def tokenizer(self, sets: Sets) -> WordTokenizer:
        """One id for each word of the training captions."""
        return WordTokenizer.from_captions(sets["train"].captions)

    def arguments(self, sets: Sets) -> dict[str, Any]:
        """What `create_model` gets; the captions decide the size of the vocabulary."""
        return {**super().arguments(sets), "image_size": self.size, "vocab_size": self.tokenizer(sets).vocab_size}

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """What `method` returns for an image: one feature vector."""
        return [[arguments.get("embed_dim", 64)]]

    def extras(self, sets: Sets) -> dict[str, Any]:
        """The words of the tokenizer in the order of their ids, and what was scored on what."""
        return {
            "method": "encode_image",
            "second": self.second and asdict(self.second),
            "words": list(self.tokenizer(sets).words),
            "templates": {name: list(prompts) for name, prompts in TEMPLATES.items()},
            "evaluation": f"zero-shot, test sets of seeds {list(SEEDS)}, {len(sets['val'])} phantoms each",
        }


# One block for the image: on this task steps are worth more than depth. Convolutions at full strength before the
# tokens are cut, and a mean for each quarter of the image: so one detector of a shape serves all places in it.
SMALL_CLIP = {
    "conv_stem": (16, 32, 64),
    "stem_extra": 1,
    "vision_width": 64,
    "vision_layers": 1,
    "vision_heads": 2,
    "pool": 2,
}

# First what random batches teach, with near misses in all that is not place; then the type, which comes last.
FIRST = ClipTrainConfig(
    epochs=40,
    lr=2e-3,
    batch_size=64,
    weight_decay=0.05,
    warmup=1,
    caption_dropout=0.1,
    hard_share=0.6,
    hard_after=1,
    vary=("tone", "size", "type"),
)

CLIP_RECIPES: dict[str, Recipe] = {
    "clip_tiny-phantoms": CaptionPretraining(
        "clip_tiny",
        "phantoms",
        64,
        FIRST,
        SMALL_CLIP,
        {"scanner": "AB", "n": 6000},
        second=replace(FIRST, epochs=24, hard_share=0.8, hard_after=0, vary=("type",)),
    ),
}
