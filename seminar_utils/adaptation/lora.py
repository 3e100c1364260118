"""LoRA: a frozen layer, and beside it a small correction that is learnt.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021 (arXiv 2106.09685, section 4.1):
h = W x + (alpha / r) B A x, with A (r, in) random and B (out, r) zero, so that training starts at the old network.
The paper adapts the projections of the attention; here every linear layer whose name is asked for. A fused qkv
layer is adapted whole (the paper: queries and values).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError


class LoRALinear(nn.Linear):
    """A linear layer with a correction of low rank; `weight` and `bias` keep their names and stand still.

    Args: layer: the layer to wrap, its parameters are shared, not copied; rank: r; alpha: the correction is scaled
    by alpha / rank, so that the rank can be changed without a new learning rate. Raises SeminarError for a rank
    outside 1..min(in, out).
    """

    def __init__(self, layer: nn.Linear, rank: int = 4, alpha: float | None = None):
        smaller = min(layer.in_features, layer.out_features)
        if not 1 <= rank <= smaller:
            raise SeminarError(f"the rank of a correction lies in 1..{smaller} for this layer, got {rank}")
        nn.Module.__init__(self)  # not Linear's: it would make new weights
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)
        self.scaling = (rank if alpha is None else alpha) / rank
        like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.lora_A = nn.Parameter(torch.empty(rank, layer.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as torch's linear layers

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        low = F.linear(x, self.lora_A)  # (..., r)
        return F.linear(x, self.weight, self.bias) + self.scaling * F.linear(low, self.lora_B)  # (..., out)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One plain layer that computes the same: W + (alpha / r) B A costs nothing at test time (section 4.1)."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.to(self.weight)
        layer.weight.copy_(self.weight + self.scaling * self.lora_B @ self.lora_A)
        if self.bias is not None:
            layer.bias.copy_(self.bias)
        return layer


def add_lora(
    model: nn.Module, targets: Sequence[str] = ("qkv", "proj"), rank: int = 4, alpha: float | None = None
) -> list[str]:
    """Freeze `model` and give every linear layer whose last name is in `targets` a correction, in place.

    Returns their full names. Raises SeminarError if there is no such layer, or if there are corrections already.
    """
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise SeminarError("this model has corrections already: merge them first (merge_lora)")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = [name for name in linear if name.rsplit(".", 1)[-1] in targets]
    if not chosen:
        ends = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise SeminarError(f"no linear layer is called {' or '.join(targets)}; this model's are {', '.join(ends)}")
    model.requires_grad_(False)
    for name in chosen:
        _replace(model, name, LoRALinear(linear[name], rank, alpha))
    return chosen


def merge_lora(model: nn.Module) -> nn.Module:
    """Put every correction into its layer, in place: the model has its old form, and its old names, again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            _replace(model, name, module.merged())
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def trainable_share(model: nn.Module) -> float:
    """The share of a model's parameters that a training would move, in 0..1."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, moves in counts if moves) / sum(n for n, _ in counts)
