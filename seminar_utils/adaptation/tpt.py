"""TPT: tune the prompt on one test image, then forget it. And C-TPT, which adds a term for calibration.

Shu et al., Test-Time Prompt Tuning for Zero-Shot Generalization, NeurIPS 2022 (arXiv 2209.07511). Test-time:
nothing but the image is needed. Yoon et al., C-TPT, ICLR 2024 (arXiv 2403.14119): prompts whose text features lie
farther apart are better calibrated. Compare MEMO, which moves all weights in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .memo import Views, marginal_entropy
from .prompts import PromptedCLIP
from .tent import softmax_entropy
from .views import random_crops


def crop_views(x: Tensor, n_views: int, generator: torch.Generator) -> Tensor:
    """Random crops of one image (1, C, H, W), mirrored half of the time: (n_views, C, H, W), as in the paper.

    They change place and size: where the class lies in either, give other views.
    """
    return random_crops(x.expand(n_views, -1, -1, -1), generator)


def confident_views(logits: Tensor, share: float = 0.1) -> Tensor:
    """Indices of the int(V * share) views of lowest entropy, the surest first: (V, K) -> (S,)."""
    count = int(len(logits) * share)
    if count < 1:
        raise SeminarError(f"of {len(logits)} views a share of {share} is none: take more views or a larger share")
    return softmax_entropy(logits).argsort(stable=True)[:count]


def text_dispersion(text: Tensor) -> Tensor:
    """Mean distance of the classes' text features (K, E) from their mean: C-TPT maximises it (eq. 4)."""
    return (text - text.mean(dim=0)).norm(dim=1).mean()


def tune_prompt(
    logits_of: Callable[[Tensor | None], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int = 1,
    share: float = 0.1,
    penalty: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Minimise the entropy of the mean answer of the surest views; returns which (S,).

    Args: logits_of: rows (S,), None for all -> their logits with a gradient to the prompt. The views are chosen
    before the first step and stay. penalty: what is added to the loss.
    """
    chosen = None
    for _ in range(steps):
        logits = logits_of(chosen)  # (V, K), then (S, K)
        if chosen is None:
            chosen = confident_views(logits.detach(), share)
            logits = logits[chosen]
        loss = marginal_entropy(logits) + (0 if penalty is None else penalty())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return chosen


class TPT(Adapter):
    """For each image alone: random views, of which the surest tenth stays; make their mean answer sure.

    Only the prompt's context moves; prompt and optimiser (AdamW with weight decay 0.01, as in the official code)
    start anew for each image, so no image can spoil the next one's. The first view is the image itself. Returns
    its logits from AFTER the update. Images are encoded once, without gradient; the price is the text tower.

    Args: model: a `PromptedCLIP`, usually `from_template`; views: as in MEMO, default `crop_views`; share: of the
    views that stay. Raises SeminarError for another model, steps < 1, or a share of the views that is none.
    """

    returned = "logits of the image itself, after the update"
    prepared = "prompts"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 5e-3,
        steps: int = 1,
        n_views: int = 64,
        share: float = 0.1,
        weight_decay: float = 0.01,
        views: Views | None = None,
        seed: int = 0,
    ):
        if not isinstance(model, PromptedCLIP):
            raise SeminarError(
                f"{type(self).__name__} tunes a prompt: give a PromptedCLIP, got {type(model).__name__}"
            )
        if steps < 1 or not 0 < share <= 1 or int(n_views * share) < 1:
            raise SeminarError(
                f"TPT needs at least one step, and one view in the share that stays, got steps={steps}, "
                f"n_views={n_views}, share={share}"
            )
        self.lr, self.steps, self.n_views, self.share = lr, steps, n_views, share
        self.weight_decay, self.views, self.seed = weight_decay, views or crop_views, seed
        super().__init__(model)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """The context."""
        return {"context": self.model.context}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A fresh AdamW, for each image."""
        return build_optimizer("adamw", self.parameters_to_adapt(), self.lr, weight_decay=self.weight_decay)

    @torch.no_grad()
    def start_again(self) -> None:
        """The prompt and the optimiser as before the first image; the encoders never moved."""
        self.model.context.copy_(self._snapshot["context"])
        self.optimizer = self.make_optimizer()

    def penalty(self) -> Tensor | float:
        """What is added to the loss: nothing."""
        return 0.0

    def adapt_image(self, x: Tensor) -> Tensor:
        """Tune on one image (1, C, H, W), then answer it: (1, K)."""
        self.start_again()
        with torch.no_grad():
            others = self.views(x, self.n_views - 1, self.generator) if self.n_views > 1 else x[:0]
            features = self.model.embed(torch.cat([x, others]))  # (V, E)
        tune_prompt(
            lambda rows: self.model(features if rows is None else features[rows]),
            self.optimizer,
            steps=self.steps,
            share=self.share,
            penalty=self.penalty,
        )
        with torch.no_grad():
            return self.model(features[:1])

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Image after image: (B, C, H, W) -> (B, K)."""
        return torch.cat([self.adapt_image(image) for image in x.split(1)])


class CTPT(TPT):
    """TPT with C-TPT's term: the loss is the marginal entropy - weight * `text_dispersion` (the paper: 50)."""

    def __init__(
        self,
        model: nn.Module,
        lr: float = 5e-3,
        steps: int = 1,
        n_views: int = 64,
        share: float = 0.1,
        weight: float = 50.0,
        weight_decay: float = 0.01,
        views: Views | None = None,
        seed: int = 0,
    ):
        self.weight = weight
        super().__init__(model, lr, steps, n_views, share, weight_decay, views, seed)

    def penalty(self) -> Tensor:
        """- weight * how far apart the text features lie."""
        return -self.weight * text_dispersion(self.model.text_features())
