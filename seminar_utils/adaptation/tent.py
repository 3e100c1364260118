"""Tent: fully test-time adaptation by entropy minimization. Wang et al., ICLR 2021 (arXiv 2006.10726)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .norm import affine_parameters, set_norm_policy


def softmax_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy H = -sum_k p_k log p_k of softmax(logits): (B, K) -> (B,), in nats (Tent, eq. 1).

    The logarithm is taken by log_softmax: log(softmax) would be -inf, and 0 * -inf NaN, for sure logits.
    """
    log_probs = logits.log_softmax(dim=1)  # (B, K)
    return -(log_probs.exp() * log_probs).sum(dim=1)  # (B,)


def class_rows(logits: Tensor) -> Tensor:
    """Logits (B, K, ...) as one row a prediction, (N, K): images as they are, in segmentation every pixel.

    A single logit z, "lesion or not", becomes the row (0, z): its softmax is the sigmoid, its entropy holds both
    terms, -p log p - (1-p) log(1-p). The softmax of z alone would always be 1, its entropy 0.
    """
    if logits.ndim > 2:
        logits = logits.movedim(1, -1).flatten(0, -2)  # (B, K, H, W) -> (B*H*W, K)
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits  # (N, K)


class Tent(Adapter):
    """Minimise the entropy of the predictions over scale and shift of the normalisation layers.

    What moves: weight and bias of the BatchNorm layers, as in the paper; `norms=("ln",)` or `("gn",)`
    opens LayerNorm or GroupNorm instead. BatchNorm uses the current batch (`policy`, see norm.py).
    Per batch, `steps` times: forward, mean entropy, backward, update. The logits returned are those of
    the LAST FORWARD, that is from before the last update (paper and official code). Online by default;
    `episodic` restores parameters and optimiser before each batch. Segmentation: each pixel is a prediction.

    Raises SeminarError when no such layer exists, or for steps < 1 or lr < 0.
    Defaults: the paper's for CIFAR (Adam, 1e-3, one step), batches of 200 there.
    """

    returned = "logits of the last forward, before the last update"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        steps: int = 1,
        episodic: bool = False,
        norms: tuple[str, ...] = ("bn",),
        optimizer: str = "adam",
        policy: str = "batch",
    ):
        if steps < 1:
            raise SeminarError(f"Tent needs at least one step a batch, got {steps}")
        self.lr, self.steps, self.episodic = lr, steps, episodic
        self.norms, self.optimizer_name, self.policy = norms, optimizer, policy
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm layers use the batch's statistics; all else stays as in evaluation."""
        set_norm_policy(self.model, self.policy)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """Weight and bias of the chosen normalisation layers."""
        return affine_parameters(self.model, self.norms)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser: no moments of earlier batches."""
        return build_optimizer(self.optimizer_name, self.parameters_to_adapt(), self.lr)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W) and return the logits (B, K) of the last forward."""
        if self.episodic:
            self.restore()
        for _ in range(self.steps):
            logits = self.model(x)  # (B, K)
            self.descend(softmax_entropy(class_rows(logits)).mean())
        return logits
