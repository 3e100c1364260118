"""CoOp: learn the words around a class name from a few labelled images.

Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022 (arXiv 2109.01134). Offline, not test-time:
labelled images are needed before the first patient. Both encoders are frozen, so the images are encoded once; the
paper's random crops and flips are left out for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.zero_shot import Tokenizer
from ..runtime import SeminarError
from .prompt_checks import Clip
from .prompts import PromptedCLIP, frozen_copy, image_features


@dataclass(frozen=True)
class PromptConfig:
    """SGD with momentum, a cosine by epochs after some at `warmup_lr`. Defaults: CoOp's for 16 shots.

    The paper takes 200 epochs for 8 and 16 shots, 100 for 2 and 4, 50 for one. There is no early stopping and no
    choice of a checkpoint: the last one counts, whatever any test set says.
    """

    lr: float = 2e-3
    epochs: int = 200
    batch_size: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: int = 1
    warmup_lr: float = 1e-5
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.lr < 0 or not 0 <= self.warmup:
            raise SeminarError(
                f"training needs epochs and batch_size >= 1, lr and warmup >= 0, got {self.epochs}, "
                f"{self.batch_size}, {self.lr}, {self.warmup}"
            )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        if epoch < self.warmup:
            return min(self.lr, self.warmup_lr)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / max(1, self.epochs - self.warmup)))


def check_labels(labels: Tensor | Sequence[int] | np.ndarray, count: int, num_classes: int) -> Tensor:
    """Labels (N,) as integers, one for each image and within the classes; SeminarError otherwise."""
    labels = torch.as_tensor(labels)
    if labels.shape != (count,) or labels.is_floating_point():
        raise SeminarError(
            f"one integer label an image is needed, got {count} images, labels {tuple(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise SeminarError(f"labels lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    return labels.long()


def few_shots(
    labels: Sequence[int] | np.ndarray, shots: int, seed: int, num_classes: int | None = None
) -> np.ndarray:
    """Sorted indices of `shots` images of every class; more shots of a seed hold the fewer.

    Raises SeminarError for zero shots (that is zero-shot: no training) and a class with fewer images than that.
    """
    labels = np.asarray(labels)
    if not isinstance(shots, int | np.integer) or shots < 1:
        raise SeminarError(f"at least one labelled image a class is needed to learn a prompt, got {shots!r} shots")
    if labels.ndim != 1 or not len(labels):
        raise SeminarError(f"shots are drawn from labels (N,), got shape {labels.shape}")
    rng, chosen = np.random.default_rng(seed), []
    for label in range(num_classes or int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < shots:
            raise SeminarError(f"class {label} has {len(members)} labelled images, {shots} shots were asked for")
        chosen.append(members[:shots])
    return np.sort(np.concatenate(chosen))


def train_context(
    parameters: Iterable[nn.Parameter], loss_of: Callable[[Tensor], Tensor], count: int, config: PromptConfig
) -> list[float]:
    """Minimise `loss_of(rows)` over shuffled batches of row numbers 0..count-1; the mean loss of each epoch.

    Raises SeminarError as soon as the loss is NaN or infinite.
    """
    parameters = list(parameters)
    options = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    optimizer = torch.optim.SGD(parameters, lr=config.lr, **options)
    generator, history = torch.Generator().manual_seed(config.seed), []
    for epoch in range(config.epochs):
        optimizer.param_groups[0]["lr"], total = config.rate(epoch), 0.0
        for rows in torch.randperm(count, generator=generator).split(config.batch_size):
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows) / count
        if not math.isfinite(total):
            raise SeminarError(
                f"the loss is no number after epoch {epoch + 1}: take a smaller lr than {config.lr:g}"
            )
        history.append(total)
    return history


def fit_coop(
    clip: Clip,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    x: Tensor,
    labels: Tensor | np.ndarray,
    config: PromptConfig | None = None,
    **options,
) -> PromptedCLIP:
    """CoOp: a context learnt by cross-entropy on labelled images, encoders frozen.

    Args: x: images (N, C, H, W) or their features (N, E); labels (N,); options: of `PromptedCLIP` (n_ctx, words,
    position, class_specific). Returns the classifier, with `history`, the loss of each epoch; its CLIP is a copy.
    Raises SeminarError for bad names, labels or images.
    """
    config = config or PromptConfig()
    model = PromptedCLIP(frozen_copy(clip), tokenizer, class_names, seed=config.seed, **options)
    features = image_features(model.clip, x)  # (N, E)
    labels = check_labels(labels, len(features), len(model.class_names)).to(features.device)
    with torch.enable_grad():
        model.history = train_context(
            [model.context], lambda rows: F.cross_entropy(model(features[rows]), labels[rows]), len(labels), config
        )
    return model.requires_grad_(False)
