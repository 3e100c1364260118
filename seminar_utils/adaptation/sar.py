"""SAR: sharpness-aware and reliable entropy minimisation. Niu et al., ICLR 2023 (arXiv 2302.12400)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .norm import NORM_KINDS, affine_parameters
from .tent import Tent, class_rows, softmax_entropy

LAST_STAGE = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm")  # stays frozen, as in the paper


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of values (N,) over `chosen` (N,) bool; 0, with gradient 0, when nothing is chosen."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


class SAR(Tent):
    """Minimise the entropy of reliable samples where the surface is flat, and start again after a collapse.

    Reliable: H < `e_margin`, by default 0.4 ln K. A step: climb from theta to theta + rho g / |g|, with g
    the gradient of the mean entropy of the reliable; there, on those that are still reliable, take a second
    gradient; from theta, SGD along it. Recovery: a moving average of the second entropy below `reset_below` says
    that the model has collapsed to one sure answer, and restores the source. "scaled" is 0.029 ln K, the published
    0.2 (for K = 1000) at other K: two classes would else restore nearly always. The scale and shift of `norms`
    move, but those of `skip`. Returns the logits of the first forward. In segmentation each pixel is a sample.

    Departures from the official code, where a recovery restores the weights only: there the average stays (so that
    it recovers again and again) and so does the momentum. `official_recovery=True` keeps both.
    Defaults: the paper's (rho 0.05; SGD 0.00025 of ResNet-50; 0.001 for a ViT). Raises SeminarError for a negative
    rate, rho or threshold, or when no layer is left to move.
    """

    returned = "logits of the first forward, before the update"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 2.5e-4,
        rho: float = 0.05,
        e_margin: float | None = None,
        reset_below: float | str = "scaled",
        norms: tuple[str, ...] = tuple(NORM_KINDS),
        skip: tuple[str, ...] = LAST_STAGE,
        policy: str = "batch",
        official_recovery: bool = False,
    ):
        if rho < 0 or (reset_below != "scaled" and (isinstance(reset_below, str) or reset_below < 0)):
            raise SeminarError(f"rho >= 0 and reset_below >= 0 or 'scaled', got {rho} and {reset_below!r}")
        self.rho, self.e_margin, self.reset_below = rho, e_margin, reset_below
        self.skip, self.official_recovery = skip, official_recovery
        super().__init__(model, lr, norms=norms, optimizer="sgd", policy=policy)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """Scale and shift of the normalisation layers, but for the last stage."""
        return affine_parameters(self.model, self.norms, self.skip)

    def forget(self) -> None:
        """No average entropy yet, nothing recovered."""
        self.average: float | None = None
        self.recovered = False

    def sharpness_aware_step(self, x: Tensor, reliable: Tensor, entropy: Tensor, e_margin: float) -> None:
        """Climb, look again, come back, descend; the second entropy joins the average."""
        theta = list(self.parameters_to_adapt().values())
        g = torch.autograd.grad(mean_of(entropy, reliable), theta, allow_unused=True, materialize_grads=True)
        norm = torch.cat([part.flatten() for part in g]).norm()  # one for all parameters
        here = [p.detach().clone() for p in theta]
        with torch.no_grad():
            for p, part in zip(theta, g):
                p.add_(part, alpha=self.rho / (float(norm) + 1e-12))
        second = softmax_entropy(class_rows(self.model(x)))  # (N,)
        still = reliable & (second.detach() < e_margin)  # (N,)
        loss = mean_of(second, still)
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, start in zip(theta, here):
                p.copy_(start)
        self.optimizer.step()
        if still.any():
            new = loss.item()
            self.average = new if self.average is None else 0.9 * self.average + 0.1 * new

    def recover_if_collapsed(self, num_classes: int) -> None:
        """Back to the source model when the average entropy is suspiciously low."""
        below = 0.2 / math.log(1000) * math.log(num_classes) if self.reset_below == "scaled" else self.reset_below
        self.recovered = self.average is not None and self.average < below
        if self.recovered and self.official_recovery:
            self.model.load_state_dict(self._snapshot, strict=True)
        elif self.recovered:
            self.restore()
            self.recovered = True

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W); returns the logits (B, K) of the first forward."""
        logits = self.model(x)  # (B, K)
        rows = class_rows(logits)  # (N, K)
        e_margin = 0.4 * math.log(rows.shape[1]) if self.e_margin is None else self.e_margin
        entropy = softmax_entropy(rows)  # (N,)
        self.sharpness_aware_step(x, entropy.detach() < e_margin, entropy, e_margin)
        self.recover_if_collapsed(rows.shape[1])
        return logits
