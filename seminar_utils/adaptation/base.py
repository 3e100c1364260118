"""What every test-time method shares: a private copy, a snapshot, a bit-exact reset, no labels.

A method says three things: how the network is set up (`configure`), which parameters move
(`parameters_to_adapt`), and what happens on a batch (`adapt_batch`). The rest is here, so that the
methods read like their papers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name

OPTIMIZERS = ("adam", "sgd")


class Adapter:
    """A model that may change while it predicts.

    The model handed in is deep-copied and never touched. The copy is set to eval mode with every
    parameter frozen; `configure` then opens only what the method needs, so dropout and drop-path stay
    off. The snapshot is taken before `configure`, and `reset()` brings parameters, buffers, optimiser
    and counters back to it, bit for bit.

    Args: model: maps (B, C, H, W) to logits (B, K). The class attribute `returned` states which
    logits a call gives back. Raises SeminarError for a model that is no nn.Module, and on each call
    for a batch that is not a finite float (B, C, H, W) tensor with B > 0.
    """

    returned = "logits of the frozen model"

    def __init__(self, model: nn.Module):
        if not isinstance(model, nn.Module):
            raise SeminarError(f"expected a torch nn.Module to adapt, got {type(model).__name__}")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._snapshot = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.configure()
        for parameter in self.parameters_to_adapt().values():
            parameter.requires_grad_(True)
        self.reset()

    def configure(self) -> None:
        """Set modes and policies of the copied model. Default: nothing, the source model."""

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name. Default: none."""
        return {}

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """A fresh optimiser over `parameters_to_adapt`. Default: none."""
        return None

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Predict the logits (B, K) of a batch, and adapt. Default: predict only."""
        with torch.no_grad():
            return self.model(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Check the batch, move it to the model, adapt on it; returns detached logits (B, K)."""
        self.check_batch(x)
        reference = next(self.model.parameters(), x)
        logits = self.adapt_batch(x.to(reference.device, reference.dtype)).detach()
        self.batches_seen += 1
        return logits

    def reset(self) -> None:
        """Back to the source model, bit for bit, with a fresh optimiser and the counters at zero."""
        self.model.load_state_dict(self._snapshot, strict=True)
        for parameter in self.model.parameters():
            parameter.grad = None
        self.optimizer = self.make_optimizer()
        self.batches_seen = 0

    @staticmethod
    def check_batch(x: Tensor) -> None:
        """Raise SeminarError unless x is a non-empty, finite, floating (B, C, H, W) tensor."""
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or len(x) == 0:
            came = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise SeminarError(f"an adapter takes a float tensor (B, C, H, W) with B > 0, got {came}")
        if not torch.isfinite(x).all():
            raise SeminarError("the batch holds NaN or infinite pixels; adapting on it would ruin the model")


class Source(Adapter):
    """No adaptation at all: the baseline that every method must beat."""


def build_optimizer(name: str, parameters: dict[str, nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Tent's two optimisers, without weight decay: Adam (0.9, 0.999) or SGD with momentum 0.9."""
    if lr < 0:
        raise SeminarError(f"a learning rate is not negative, got {lr}")
    if name == "adam":
        return torch.optim.Adam(parameters.values(), lr=lr, betas=(0.9, 0.999))
    if name == "sgd":
        return torch.optim.SGD(parameters.values(), lr=lr, momentum=0.9)
    raise unknown_name("optimizer", name, OPTIMIZERS)
