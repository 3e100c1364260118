"""Joint training: a classifier learns a self-supervised task beside its own, so that the task can be asked later.

Sun et al., TTT, 2020 (arXiv 1909.13231, section 2, eq. 1): minimise the sum of both losses over encoder and both
heads. Liu et al., TTT++, 2021 (NeurIPS, section 4.1): the same with SimCLR as the second task. The loop is
`supervised.fit`, which resumes exactly; only the objective is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..models.rotation import all_rotations, random_rotations, rotation_loss
from ..models.two_heads import TASKS, TwoHeads
from ..runtime import SeminarError
from .simclr import TwoViews, simclr_loss
from .supervised import TrainConfig, cross_entropy, fit


@dataclass(frozen=True)
class JointConfig(TrainConfig):
    """Supervised training with a second loss, `auxiliary_weight` times; `temperature`, `views`: SimCLR's."""

    auxiliary_weight: float = 1.0
    temperature: float = 0.5
    views: TwoViews = field(default_factory=TwoViews)

    def __post_init__(self):
        super().__post_init__()
        if self.auxiliary_weight < 0 or self.temperature <= 0:
            raise SeminarError(f"joint training needs auxiliary_weight >= 0 and temperature > 0, got {self}")


def fit_joint(
    model: TwoHeads, train: Any, val: Any, config: JointConfig, **options: Any
) -> list[dict[str, float]]:
    """Train both heads of `model` in place; returns the history, as `supervised.fit` does, with its options.

    The best epoch is chosen by the classifier alone, on `val`. Raises SeminarError for a model without a second
    head.
    """
    check_two_heads(model)
    return fit(model, train, val, config, objective=joint_loss, **options)


def joint_loss(model: TwoHeads, x: Tensor, y: Tensor, config: JointConfig) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the plain images plus the weighted loss of the second task; also the logits (B, K)."""
    loss, logits = cross_entropy(model, x, y, config)
    with keep_running_statistics(model.backbone):
        return loss + config.auxiliary_weight * auxiliary_loss(model, x, config), logits


def auxiliary_loss(model: TwoHeads, x: Tensor, config: JointConfig) -> Tensor:
    """One random rotation of every image (as in TTT's code), or two views of it; torch's own random numbers."""
    generator = torch.default_generator  # seeded anew in every epoch, so a resumed run draws the same
    if model.task == "rotation":
        turned, turns = random_rotations(x, generator)
        return rotation_loss(model(turned, auxiliary=True)[0], turns)
    return simclr_loss(model, config.views(x, generator), config.temperature)


@contextmanager
def keep_running_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm uses the batch but remembers nothing: what is stored describes plain images only."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum


@torch.inference_mode()
def rotation_accuracy(model: TwoHeads, x: Tensor, batch_size: int = 256) -> float:
    """Share of right answers to the rotation task over all four positions of the images x (N, C, S, S), in 0..1.

    It says what the task can teach: at one in four there is nothing to ask at test time.
    """
    if model.task != "rotation":
        raise SeminarError(f"this model's second task is {model.task}, not rotation")
    right = 0
    for batch in x.split(batch_size):
        turned, turns = all_rotations(batch)
        right += (model(turned, auxiliary=True)[0].argmax(dim=1) == turns).sum().item()
    return right / (4 * len(x))


def check_two_heads(model: nn.Module) -> None:
    """Raise SeminarError unless the model has a head for one of the known tasks."""
    if not isinstance(model, TwoHeads) or model.task not in TASKS:
        raise SeminarError(
            f"joint training needs a network with a second head, as create_model('resnet_small_rotation') or "
            f"('resnet_small_simclr'), got {type(model).__name__}"
        )
