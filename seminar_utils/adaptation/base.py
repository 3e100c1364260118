"""What every test-time method shares: a private copy, a snapshot, a bit-exact reset, no labels, its price.

A method says three things: how the network is set up (`configure`), which parameters move
(`parameters_to_adapt`), and what happens on a batch (`adapt_batch`). If it remembers anything beside the
network (averages, a queue, a teacher), `forget` sets that to its start. The rest is here, so that the methods
read like their papers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .passes import Passes, count_passes, kept_bytes

OPTIMIZERS = ("adam", "adamw", "sgd")


class Adapter:
    """A model that may change while it predicts.

    The model handed in is deep-copied and never touched. The copy is set to eval mode with every
    parameter frozen; `configure` then opens only what the method needs, so dropout and drop-path stay
    off. The snapshot is taken before `configure`. `restore()` goes back to it, bit for bit: parameters,
    buffers, optimiser, and all that `forget` names. `reset()` does the same and also sets the counters to zero
    and the method's own random numbers (`generator`) to their start.

    Args: model: maps (B, C, H, W) to logits (B, K). The class attribute `returned` states which
    logits a call gives back; `needs_source`, that `fit_source` must come first; `seed` starts `generator`.
    Raises SeminarError for a model that is no nn.Module, and on each call for a batch that is not a finite
    float (B, C, H, W) tensor with B > 0.
    """

    returned = "logits of the frozen model"
    needs_source = False
    seed = 0

    def __init__(self, model: nn.Module):
        if not isinstance(model, nn.Module):
            raise SeminarError(f"expected a torch nn.Module to adapt, got {type(model).__name__}")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.generator = torch.Generator()  # on the CPU, so that every device sees the same numbers
        self.source_images = 0
        self._snapshot = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._unsaved = {name: b.clone() for name, b in self.model.named_buffers() if name not in self._snapshot}
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

    def forget(self) -> None:
        """Set what the method remembers beside model and optimiser to its start. Default: nothing."""

    def learn_source(self, batches: Iterable[Tensor]) -> None:
        """What `fit_source` computes; a method with `needs_source` says it here."""
        raise SeminarError(f"{type(self).__name__} needs nothing from the source: call it without fit_source")

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Predict the logits (B, K) of a batch, and adapt. Default: predict only."""
        with torch.no_grad():
            return self.model(x)

    def fit_source(self, batches: Iterable[Tensor]) -> Adapter:
        """Measure once, before the first patient, what the method needs of SOURCE images (no labels).

        batches: tensors (B, C, H, W). What is learnt outlives a reset. Starts from the source model and returns
        to it; `source_images` counts what was seen. Returns the adapter itself.
        Raises SeminarError without a batch, or for a method that needs nothing.
        """
        batches = [self.placed(x) for x in batches]
        if not batches:
            raise SeminarError("fit_source takes batches of source images (B, C, H, W), got none")
        self.reset()
        self.learn_source(batches)
        self.source_images = sum(len(x) for x in batches)
        self.reset()
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Check the batch, adapt on it; returns detached logits (B, K), on the device and in the dtype of x."""
        if self.needs_source and not self.source_images:
            raise SeminarError(f"{type(self).__name__} must see source images first: fit_source(batches)")
        with torch.inference_mode(False), torch.enable_grad():  # a caller's no_grad must not stop the learning
            placed = self.placed(x)
            placed = placed.clone() if placed.is_inference() else placed
            with count_passes(self) as passes:
                logits = self.adapt_batch(placed).detach()
        self.passes = passes
        self.batches_seen += 1
        return logits.to(x.device, x.dtype)

    def placed(self, x: Tensor) -> Tensor:
        """The batch, checked, on the model's device and in its dtype."""
        self.check_batch(x)
        reference = next(self.model.parameters(), x)
        return x.to(reference.device, reference.dtype)

    def restore(self) -> None:
        """Back to the source model, bit for bit, with a fresh optimiser; counters and random numbers run on."""
        self.model.load_state_dict(self._snapshot, strict=True)
        buffers = dict(self.model.named_buffers())
        for name, value in self._unsaved.items():
            buffers[name].copy_(value)
        for parameter in self.model.parameters():
            parameter.grad = None
        self.optimizer = self.make_optimizer()
        self.forget()

    def reset(self) -> None:
        """As on the first day: `restore`, the counters at zero, the random numbers from their start."""
        self.restore()
        self.batches_seen = 0
        self.passes = Passes()
        self.generator.manual_seed(self.seed)

    def descend(self, loss: Tensor) -> None:
        """One step of the optimiser down the gradient of `loss`."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def cost(self) -> dict[str, float]:
        """The price of the last batch, in plain numbers.

        `forward`, `backward`: passes through the networks; `forward_images`, `backward_images`: images in them;
        `extra_mib`: what the method now keeps beside the model itself (snapshot, moments, teacher, queue).
        """
        return {**vars(self.passes), "extra_mib": kept_bytes(self, self.model) / 2**20}

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


def build_optimizer(
    name: str, parameters: dict[str, nn.Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Adam or AdamW (0.9, 0.999), or SGD. Defaults: Tent's, no weight decay and SGD with momentum 0.9."""
    if lr < 0:
        raise SeminarError(f"a learning rate is not negative, got {lr}")
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    if name == "sgd":
        return torch.optim.SGD(parameters.values(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    adam = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return adam(parameters.values(), lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay)
