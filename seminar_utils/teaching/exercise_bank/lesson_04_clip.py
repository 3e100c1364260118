"""Exercises of lesson 04: the end token, similarities, the symmetric loss, several prompts for a class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Case, Exercise


def similarity(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """exp(log_scale) * cosine of every image (B, D) with every caption (M, D): logits (B, M).

    log_scale is a tensor that is learnt, as image and text are: a gradient reaches all three.
    Radford et al. 2021 (arXiv 2103.00020), figure 3.
    """
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    return log_scale.exp() * image @ text.T


def info_nce(logits: Tensor) -> Tensor:
    """Symmetric cross-entropy of logits (B, B) whose pairs lie on the diagonal: a tensor without axes.

    Radford et al. 2021 (arXiv 2103.00020), figure 3.
    """
    labels = torch.arange(len(logits), device=logits.device)  # (B,)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def pool_end_token(tokens: Tensor, ids: Tensor) -> Tensor:
    """The vector of each caption's end token, the largest id: tokens (B, L, D), ids (B, L) -> (B, D)."""
    return tokens[torch.arange(len(tokens), device=tokens.device), ids.argmax(dim=1)]


def ensemble(prompts: Tensor) -> Tensor:
    """One direction for each class from its prompts: (K, T, D) -> (K, D), of length 1.

    K classes, T prompts each, features of any length; each prompt counts the same.
    Radford et al. 2021 (arXiv 2103.00020), section 3.1.4: the mean is taken of features, not of probabilities.
    """
    return F.normalize(F.normalize(prompts, dim=-1).mean(dim=1), dim=-1)


def _features(batch: int, captions: int, dim: int, scale: float, spread: float = 1.0) -> Case:
    def make() -> dict[str, object]:
        lengths = spread ** torch.arange(float(batch))[:, None]  # images of very different length
        image, text = lengths * torch.randn(batch, dim), 3 * torch.randn(captions, dim)
        return {"image": image, "text": text, "log_scale": torch.tensor(math.log(scale))}

    return Case(make)


def similarity_cases() -> list[Case]:
    """One pair; several; more captions than images; unlike lengths and CLIP's largest scale."""
    return [
        _features(1, 1, 2, 1.0),
        _features(2, 2, 3, 1 / 0.07),
        _features(2, 5, 4, 10.0),
        _features(3, 3, 4, 100.0, 5.0),
    ]


def _logits(size: int, scale: float) -> Case:
    return Case(lambda: {"logits": scale * torch.randn(size, size)})


def info_nce_cases() -> list[Case]:
    """A batch of one (nothing to tell apart), two, eight; logits so large that exp overflows."""
    return [_logits(1, 1.0), _logits(2, 1.0), _logits(8, 3.0), _logits(5, 200.0)]


def _captions(lengths: tuple[int, ...], width: int, dim: int, end: int = 9) -> Case:
    def make() -> dict[str, object]:
        ids = torch.zeros(len(lengths), width, dtype=torch.long)
        for row, length in zip(ids, lengths):
            row[0] = 2
            row[1 : length - 1] = torch.randint(3, end, (length - 2,))
            row[length - 1] = end
        numbered = torch.arange(float(len(lengths) * width * dim)).view(len(lengths), width, dim)
        return {"tokens": numbered, "ids": ids}

    return Case(make)


def pool_end_token_cases() -> list[Case]:
    """A caption that fills its row; a short one; captions of unlike length; a square of numbers."""
    return [
        _captions((3,), 3, 2),
        _captions((3,), 5, 2),
        _captions((3, 6, 4), 6, 4),
        _captions((4, 2, 3, 4), 4, 4),
    ]


def _prompts(classes: int, templates: int, dim: int, spread: float = 1.0) -> Case:
    def make() -> dict[str, object]:
        lengths = spread ** torch.arange(float(templates))[None, :, None]
        return {"prompts": lengths * torch.randn(classes, templates, dim)}

    return Case(make)


def ensemble_cases() -> list[Case]:
    """Two prompts to draw on paper; one; three; prompts of very unlike length; as many classes as prompts."""
    by_hand = Case(lambda: {"prompts": torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])})
    return [by_hand, _prompts(2, 1, 3), _prompts(2, 3, 4), _prompts(3, 4, 5, 6.0), _prompts(3, 3, 3, 2.0)]


EXERCISES = (
    Exercise(
        id="clip.pool_end_token",
        lesson="04_clip",
        title="reading a caption at its end",
        difficulty=2,
        minutes=6,
        implementation=f"{__name__}:pool_end_token",
        cases=pool_end_token_cases,
        gradient_to=("tokens",),
        hints=(
            "The end token is the first that has seen the whole caption, and captions are not equally long: the "
            "last column of the tensor is mostly padding.",
            "The end token has the largest id of all, so ids.argmax(dim=1) says where it stands: (B,).",
            "tokens[torch.arange(len(tokens)), ids.argmax(dim=1)]; tokens[:, ids.argmax(1)] would be (B, B, D).",
        ),
    ),
    Exercise(
        id="clip.similarity",
        lesson="04_clip",
        title="every image against every caption",
        difficulty=1,
        minutes=5,
        implementation=f"{__name__}:similarity",
        cases=similarity_cases,
        gradient_to=("image", "text", "log_scale"),
        hints=(
            "Two things are easily left out. The model learns the LOGARITHM of the factor; and a cosine does not "
            "know how long its vectors are: make every row of image and text of length 1 first.",
            "log_scale.exp() is the factor, and still a tensor that learns. F.normalize(image, dim=-1) divides "
            "each row by its length; then one matrix product gives all pairs: (B, D) @ (D, M).",
            "log_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T",
        ),
    ),
    Exercise(
        id="clip.info_nce",
        lesson="04_clip",
        title="the symmetric loss",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:info_nce",
        cases=info_nce_cases,
        gradient_to=("logits",),
        hints=(
            "The rows are one half only: a column is a classification, too (which image belongs to caption j?). "
            "The loss is the mean of both halves.",
            "Row i has B classes and the label i, so the labels are 0 .. B-1; a column is a row of logits.T. Give "
            "F.cross_entropy the logits: it takes the softmax itself.",
            "labels = torch.arange(len(logits)); (F.cross_entropy(logits, labels) + "
            "F.cross_entropy(logits.T, labels)) / 2",
        ),
    ),
    Exercise(
        id="clip.ensemble",
        lesson="04_clip",
        title="several prompts for a class",
        difficulty=2,
        minutes=6,
        implementation=f"{__name__}:ensemble",
        cases=ensemble_cases,
        hints=(
            "A prompt whose feature happens to be long should not count for more than the others.",
            "Normalise over D, average over the templates (axis 1); the mean of unit vectors is shorter than 1.",
            "F.normalize(F.normalize(prompts, dim=-1).mean(dim=1), dim=-1)",
        ),
    ),
)
