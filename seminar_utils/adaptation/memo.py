"""MEMO: one image, many views, one answer. Zhang, Levine & Finn, NeurIPS 2022 (arXiv 2110.09506)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .norm import set_norm_policy
from .tent import class_rows
from .views import random_views

Views = Callable[[Tensor, int, torch.Generator], Tensor]


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy of the MEAN prediction over the views of one image: (V, K) -> scalar, in nats.

    The mean is of probabilities, taken in logarithms: log mean_v softmax. Low if the views agree AND are sure.
    """
    log_mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))  # (K,)
    return -(log_mean.exp() * log_mean).sum()


def repeated_views(x: Tensor, n_views: int, generator: torch.Generator) -> Tensor:
    """`n_views` random views of one image (1, C, H, W): (n_views, C, H, W)."""
    return random_views(x.expand(n_views, -1, -1, -1), generator)


class MEMO(Adapter):
    """For each image alone: make the mean answer over its random views sure, then answer the image itself.

    All parameters move, for one image; `episodic` (the paper) restores them and the optimiser before the next. The
    statistics of BatchNorm are blended, `batch_weight` of the views' on the source's (the paper: N = 16, weight
    1 / 17), so that the method needs no batch at all. It costs `steps` forwards and backwards of `n_views` images
    for each image. Returns the logits from AFTER the update.

    Args: views: (image (1, C, H, W), n, generator) -> (n, C, H, W); default `random_views` (the paper: AugMix).
    They must not change the class: where it lies in brightness or size, give others. Defaults: the paper's for
    CIFAR-10 (SGD 0.005, no momentum, 32 views). Raises SeminarError for steps < 1, no view, another policy, or a
    model that does not classify images.
    """

    returned = "logits of the image itself, after the update"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 5e-3,
        steps: int = 1,
        n_views: int = 32,
        episodic: bool = True,
        optimizer: str = "sgd",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        policy: str = "blend",
        batch_weight: float = 1 / 17,
        views: Views | None = None,
        seed: int = 0,
    ):
        if steps < 1 or n_views < 1:
            raise SeminarError(f"MEMO needs at least one step and one view, got {steps} and {n_views}")
        self.lr, self.steps, self.n_views, self.episodic = lr, steps, n_views, episodic
        self.optimizer_name, self.momentum, self.weight_decay = optimizer, momentum, weight_decay
        self.policy, self.batch_weight, self.views, self.seed = policy, batch_weight, views or repeated_views, seed
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm blends; the other norms need nothing."""
        set_norm_policy(self.model, self.policy, self.batch_weight)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """All of them."""
        return dict(self.model.named_parameters())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser, for each image if episodic."""
        settings = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return build_optimizer(self.optimizer_name, self.parameters_to_adapt(), self.lr, **settings)

    def adapt_image(self, x: Tensor) -> Tensor:
        """Adapt to one image (1, C, H, W), then predict it: (1, K)."""
        if self.episodic:
            self.restore()
        views = self.views(x, self.n_views, self.generator)  # (V, C, H, W)
        for _ in range(self.steps):
            logits = self.model(views)  # (V, K)
            if logits.ndim != 2:
                raise SeminarError(f"MEMO's views move pixels: it adapts classifiers, got {tuple(logits.shape)}")
            self.descend(marginal_entropy(class_rows(logits)))
        with torch.no_grad():
            return self.model(x)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Image after image: (B, C, H, W) -> (B, K)."""
        return torch.cat([self.adapt_image(image) for image in x.split(1)])
