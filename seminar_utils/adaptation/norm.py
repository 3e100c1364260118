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
    throws them away instead, so that it can never return to the source model). Where a batch leaves one value
    a channel (one image, one pixel) there is nothing to measure: the stored statistics serve.
    """
    layer.train()
    layer.track_running_stats = update_running
    layer.register_forward_pre_hook(_rest_if_alone)
    layer.register_forward_hook(_wake_up)


def _rest_if_alone(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    x = inputs[0]  # (B, C, ...)
    layer.alone = layer.training and x.numel() == x.shape[1] and layer.running_mean is not None
    if layer.alone:
        layer.training = False


def _wake_up(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    layer.training = layer.training or layer.alone


def set_norm_policy(
    model: nn.Module, policy: str, batch_weight: float = 0.1, update_running: bool = False
) -> None:
    """Tell the BatchNorm layers of `model`, in place, which statistics to use: one of `POLICIES`.

    `source`: those of the training; `batch`: those of the current batch (the stored ones follow if
    `update_running`); `blend`: between the two, with weight `batch_weight` on the batch; `ema`: that, remembered.
    A model without BatchNorm keeps its statistics. Raises SeminarError for another policy or weight.
    """
    if policy not in POLICIES:
        raise unknown_name("BatchNorm policy", policy, POLICIES)
    if not 0 <= batch_weight <= 1:
        raise SeminarError(f"batch_weight lies in [0, 1], got {batch_weight}")
    for name, layer in norm_layers(model, ("bn",)).items():
        if policy == "batch":
            use_batch_statistics(layer, update_running)
        elif policy in ("blend", "ema"):
            model.set_submodule(name, BlendedBatchNorm.replacing(layer, batch_weight, policy == "ema"))
    for layer in norm_layers(model, ("gn",)).values():
        layer.register_forward_pre_hook(_in_plain_layout)


def _in_plain_layout(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """torch 2.13's GroupNorm writes to a null pointer on the CPU, in the backward pass over a channels-last input
    that needs no gradient while the layer's weights do: just what Tent asks of the first layer after a frozen one.
    """
    x = inputs[0]  # (B, C, ...)
    return (x if x.requires_grad else x.contiguous(),)


def affine_parameters(
    model: nn.Module, norms: tuple[str, ...] = tuple(NORM_KINDS), skip: tuple[str, ...] = ()
) -> dict[str, nn.Parameter]:
    """Scale and shift of the normalisation layers of the given kinds, by name, in module order.

    skip: names of parts ("layer4") whose layers stay as they are. Raises SeminarError when nothing is left.
    """
    found = {
        f"{layer_name}.{name}": parameter
        for layer_name, layer in norm_layers(model, norms).items()
        if not any(layer_name == part or layer_name.startswith(f"{part}.") for part in skip)
        for name, parameter in layer.named_parameters(recurse=False)
    }
    if not found:
        has = [kind for kind in NORM_KINDS if norm_layers(model, (kind,))]
        left_out = f" outside {skip}" if skip else ""
        raise SeminarError(f"found no {norms} layer with weights{left_out}; this model has {has or 'none'}")
    return found


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
        self.policy, self.batch_weight = policy, batch_weight
        self.update_running, self.restart = update_running, restart
        super().__init__(model)

    def configure(self) -> None:
        """Give every BatchNorm layer of the copied model the chosen statistics."""
        if not norm_layers(self.model, ("bn",)) and self.policy != "source":
            raise SeminarError("this model has no BatchNorm layer, so there are no statistics to adapt")
        set_norm_policy(self.model, self.policy, self.batch_weight, self.update_running)

    def forget(self) -> None:
        """The stored statistics start at the source's (or at 0 and 1, if `restart`)."""
        if self.restart:
            for layer in norm_layers(self.model, ("bn",)).values():
                layer.reset_running_stats()
