"""RDumb: start again, now and then. Press et al., NeurIPS 2023 (arXiv 2306.05401)."""

from __future__ import annotations

from torch import Tensor, nn

from ..runtime import SeminarError
from .eata import ETA
from .norm import NORM_KINDS
from .tent import Tent


class PeriodicReset:
    """Mixed into an adapter, restores the source model after every `every` batches.

    It knows nothing of the images, and on long streams matches or beats methods that try to notice their own
    decay: the bar that every claim of stability must pass. Counters and random numbers run on. Raises
    SeminarError for every < 1.
    """

    def __init__(self, model: nn.Module, every: int = 1000, **settings):
        if every < 1:
            raise SeminarError(f"a reset comes after at least one batch, got every={every}")
        self.every = every
        super().__init__(model, **settings)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Restore if it is time, then do what the method does."""
        if self.batches_seen and self.batches_seen % self.every == 0:
            self.restore()
        return super().adapt_batch(x)


class RDumb(PeriodicReset, ETA):
    """The paper's baseline: ETA (EATA without Fisher) with a reset every 1000 batches. Settings: see EATA."""

    def __init__(
        self,
        model: nn.Module,
        every: int = 1000,
        lr: float = 5e-3,
        e_margin: float | None = None,
        d_margin: float | str = "scaled",
        norms: tuple[str, ...] = tuple(NORM_KINDS),
        policy: str = "batch",
    ):
        settings = {"lr": lr, "e_margin": e_margin, "d_margin": d_margin, "norms": norms, "policy": policy}
        super().__init__(model, every, **settings)


class TentReset(PeriodicReset, Tent):
    """Tent with the same reset: what the reset alone is worth. Settings: see Tent."""

    def __init__(
        self,
        model: nn.Module,
        every: int = 1000,
        lr: float = 1e-3,
        steps: int = 1,
        norms: tuple[str, ...] = ("bn",),
        optimizer: str = "adam",
        policy: str = "batch",
    ):
        settings = {"lr": lr, "steps": steps, "norms": norms, "optimizer": optimizer, "policy": policy}
        super().__init__(model, every, **settings)
