"""Adapting the statistics of BatchNorm layers: no gradient, no label, often most of the gain.

Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, 2020
(arXiv 2006.16971); Nado et al., Evaluating prediction-time batch normalization, 2020 (arXiv 2006.10963).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .base import Adapter

NORM_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "bn": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "ln": (nn.LayerNorm,),
    "gn": (nn.GroupNorm,),
}
POLICIES = ("source", "batch", "blend", "ema")


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of x (B, C, ...), each (C,): over batch and positions."""
    over = [axis for axis in range(x.ndim) if axis != 1]
    return x.mean(dim=over), x.var(dim=over, unbiased=False)


def norm_layers(model: nn.Module, kinds: tuple[str, ...] = ("bn",)) -> dict[str, nn.Module]:
    """The normalisation layers of the given kinds ("bn", "ln", "gn") by name, in module order."""
    for kind in kinds:
        if kind not in NORM_KINDS:
            raise unknown_name("norm kind", kind, NORM_KINDS)
    types = tuple(t for kind in kinds for t in NORM_KINDS[kind])
    return {name: module for name, module in model.named_modules() if isinstance(module, types)}


def use_batch_statistics(layer: nn.Module, update_running: bool = False) -> None:
    """Make one BatchNorm layer normalise by its current batch; the other layers stay in eval mode.

    With `update_running=False` the stored source statistics are kept but ignored (the official Tent
    throws them away instead, so that it can never return to the source model).
    """
    layer.train()
    layer.track_running_stats = update_running


class BlendedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics lie between the source's and the batch's (Schneider et al., eq. 3).

    mean = (1 - a) * stored + a * batch, and the same for the variance (unbiased, as in the common
    implementation); a = `batch_weight`. With `remember` the blend is stored: a moving average that
    follows the stream and makes sense even for a batch of one.
    """

    batch_weight: float = 0.1
    remember: bool = False

    @classmethod
    def replacing(cls, layer: nn.BatchNorm2d, batch_weight: float, remember: bool) -> BlendedBatchNorm:
        """A blended layer with the parameters and statistics of `layer`."""
        new = cls(layer.num_features, eps=layer.eps, affine=layer.affine).to(layer.running_mean)
        new.weight, new.bias = layer.weight, layer.bias
        new.load_state_dict(layer.state_dict())
        new.batch_weight, new.remember = batch_weight, remember
        return new.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W) by the blended statistics."""
        batch_mean, batch_var = (moment.detach() for moment in batch_statistics(x))  # (C,), (C,)
        count = x.numel() / x.shape[1]
        batch_var = batch_var * count / max(count - 1, 1)  # unbiased
        mean = torch.lerp(self.running_mean, batch_mean, self.batch_weight)  # (C,)
        var = torch.lerp(self.running_var, batch_var, self.batch_weight)  # (C,)
        if self.remember:
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)


class BatchNormAdapt(Adapter):
    """Replace the statistics that BatchNorm remembers from training; nothing is learnt.

    Policies: `source` keeps the training statistics; `batch` uses those of the current batch (with
    `update_running` the stored ones follow, as in the official `norm.py`; `restart` first sets them to
    0 and 1); `blend` mixes both with weight `batch_weight`; `ema` mixes and remembers.
    Returns the logits of that one forward. Raises SeminarError for a model without BatchNorm.
    """

    returned = "logits of one forward with the chosen statistics"

    def __init__(
        self,
        model: nn.Module,
        policy: str = "batch",
        batch_weight: float = 0.1,
        update_running: bool = False,
        restart: bool = False,
    ):
        if policy not in POLICIES:
            raise unknown_name("BatchNorm policy", policy, POLICIES)
        if not 0 <= batch_weight <= 1:
            raise SeminarError(f"batch_weight lies in [0, 1], got {batch_weight}")
        self.policy, self.batch_weight = policy, batch_weight
        self.update_running, self.restart = update_running, restart
        super().__init__(model)

    def configure(self) -> None:
        """Give every BatchNorm layer of the copied model the chosen statistics."""
        layers = norm_layers(self.model, ("bn",))
        if not layers and self.policy != "source":
            raise SeminarError("this model has no BatchNorm layer, so there are no statistics to adapt")
        for name, layer in layers.items():
            if self.policy == "batch":
                use_batch_statistics(layer, self.update_running)
            elif self.policy in ("blend", "ema"):
                new = BlendedBatchNorm.replacing(layer, self.batch_weight, self.policy == "ema")
                self.model.set_submodule(name, new)

    def reset(self) -> None:
        """Back to the source statistics (or to 0 and 1, if `restart`)."""
        super().reset()
        if self.restart:
            for layer in norm_layers(self.model, ("bn",)).values():
                layer.reset_running_stats()
