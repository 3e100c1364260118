"""EATA: adapt on the samples worth it, and do not forget. Niu et al., ICML 2022 (arXiv 2204.02610)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .norm import NORM_KINDS
from .tent import Tent, class_rows, softmax_entropy

PUBLISHED = {"imagenet": 0.05, "cifar10": 0.4, "cifar100": 0.1}  # the redundancy threshold of each data set


def redundancy_threshold(d_margin: float | str, num_classes: int) -> float:
    """How similar to the average prediction a sample may be.

    A sure prediction and a uniform average have the cosine 1 / sqrt(K), so that the published 0.05 lets nobody
    pass below 400 classes. "scaled" carries CIFAR-10's 0.4 to other K: 0.4 * sqrt(10 / K), at most 0.95. The names
    in `PUBLISHED` and plain numbers are taken as they are. Raises SeminarError for another name.
    """
    if d_margin == "scaled":
        return min(0.95, PUBLISHED["cifar10"] * math.sqrt(10 / num_classes))
    if isinstance(d_margin, str):
        if d_margin not in PUBLISHED:
            raise unknown_name("redundancy threshold", d_margin, ("scaled", *PUBLISHED))
        return PUBLISHED[d_margin]
    return d_margin


class EATA(Tent):
    """Tent on the reliable and non-redundant samples of a batch, with a pull back to what mattered at home.

    Reliable: entropy H < `e_margin`, by default 0.4 ln K. Non-redundant: cosine to the moving average m of earlier
    predictions below `d_margin`. Loss: mean of exp(e_margin - H) H over the kept samples (section 3.2) +
    `fisher_alpha` * sum_p F_p (theta_p - theta0_p)^2 (section 3.3), with F the squared gradients on source images
    (`fit_source`; `fisher_alpha=0` needs none: the paper's ETA). Nothing kept: nothing moves. Returns the logits
    from before the update. In segmentation each pixel is a sample.

    Departure from the official code: there m outlives a reset; here it goes with the rest.
    Defaults: the paper's for CIFAR-10 (SGD 0.005, momentum 0.9; alpha 1; ImageNet: 0.00025, 2000). Raises
    SeminarError for an unknown threshold, a negative rate or alpha, or a model without such layers.
    """

    returned = "logits from before the update"
    needs_source = True

    def __init__(
        self,
        model: nn.Module,
        lr: float = 5e-3,
        e_margin: float | None = None,
        d_margin: float | str = "scaled",
        fisher_alpha: float = 1.0,
        norms: tuple[str, ...] = tuple(NORM_KINDS),
        policy: str = "batch",
    ):
        redundancy_threshold(d_margin, 2)  # an unknown name is refused now, not at the first patient
        if fisher_alpha < 0:
            raise SeminarError(f"fisher_alpha is not negative, got {fisher_alpha}")
        self.e_margin, self.d_margin, self.fisher_alpha = e_margin, d_margin, fisher_alpha
        self.needs_source = fisher_alpha > 0
        self.fisher: dict[str, Tensor] = {}
        super().__init__(model, lr, norms=norms, optimizer="sgd", policy=policy)

    def forget(self) -> None:
        """No average prediction yet, nothing counted."""
        self.average: Tensor | None = None  # m, (K,)
        self.reliable = self.kept = 0

    def learn_source(self, batches: Sequence[Tensor]) -> None:
        """Fisher: squared gradients of each batch's mean loss on the model's own answers, averaged (section 3.3).

        The paper squares sample by sample; the official code, and this, batch by batch.
        """
        moving = self.parameters_to_adapt()
        self.fisher = {name: torch.zeros_like(parameter) for name, parameter in moving.items()}
        for x in batches:
            rows = class_rows(self.model(x))  # (N, K)
            loss = F.cross_entropy(rows, rows.argmax(dim=1))
            # a norm that the answer does not pass, in a second head, has gradient and importance 0
            gradients = torch.autograd.grad(loss, list(moving.values()), allow_unused=True, materialize_grads=True)
            for name, gradient in zip(moving, gradients):
                self.fisher[name] += gradient**2 / len(batches)

    def select(self, rows: Tensor, entropy: Tensor, e_margin: float) -> Tensor:
        """Which samples to learn from (N,) bool; their predictions then join the average m."""
        keep = entropy < e_margin  # (N,)
        self.reliable += int(keep.sum())
        probs = rows.softmax(dim=1)  # (N, K)
        if self.average is not None:
            similar = F.cosine_similarity(self.average[None], probs, dim=1)  # (N,) in [0, 1]
            keep = keep & (similar < redundancy_threshold(self.d_margin, rows.shape[1]))
        self.kept += int(keep.sum())
        if keep.any():
            new = probs[keep].mean(dim=0)  # (K,)
            self.average = new if self.average is None else 0.9 * self.average + 0.1 * new
        return keep

    def anchor(self) -> Tensor:
        """How far the parameters are from home, weighted by what mattered there: the pull back."""
        moving = self.parameters_to_adapt().items()
        return sum((self.fisher[name] * (p - self._snapshot[name].to(p.device)) ** 2).sum() for name, p in moving)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on what is kept of x (B, C, H, W); returns the logits (B, K) from before the update."""
        logits = self.model(x)  # (B, K)
        rows = class_rows(logits)  # (N, K)
        entropy = softmax_entropy(rows)  # (N,)
        e_margin = 0.4 * math.log(rows.shape[1]) if self.e_margin is None else self.e_margin
        keep = self.select(rows.detach(), entropy.detach(), e_margin)
        if keep.any():
            entropy = entropy[keep]
            loss = (entropy * (e_margin - entropy.detach()).exp()).mean()
            if self.fisher_alpha:
                loss = loss + self.fisher_alpha * self.anchor()
            self.descend(loss)
        return logits


class ETA(EATA):
    """EATA without the pull back (the paper's ablation): needs nothing from the source."""

    needs_source = False

    def __init__(
        self,
        model: nn.Module,
        lr: float = 5e-3,
        e_margin: float | None = None,
        d_margin: float | str = "scaled",
        norms: tuple[str, ...] = tuple(NORM_KINDS),
        policy: str = "batch",
    ):
        super().__init__(model, lr, e_margin, d_margin, 0.0, norms, policy)
