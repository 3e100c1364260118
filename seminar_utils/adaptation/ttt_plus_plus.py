"""TTT++: contrast the incoming images, and keep their features where the source's were.

Liu et al., TTT++: When does self-supervised test-time training fail or thrive?, NeurIPS 2021. Self-supervision
alone may move the features away from the classifier; the alignment holds them (section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from ..models.simclr import contrastive_loss
from ..models.two_heads import TwoHeads
from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .feature_alignment import FeatureQueue, SourceMoments
from .norm import set_norm_policy
from .ttt import check_prepared, check_settings

SPACES = ("projections", "features")  # behind the projection head, and behind the encoder


class TTTPlusPlus(Adapter):
    """Contrastive loss of two views plus distance of the feature moments to the source's (eq. 3 to 6).

    What moves: the whole encoder, heads frozen, SGD with momentum 0.9. Per batch, `steps` times: (1) the
    contrastive loss of two views of every image; (2) the moments of the batch's features, together with a queue of
    past detached ones, against the source's, behind the encoder (weight `align_features`) and behind the
    projection head (`align_projections`); backward through the current batch only. Then the batch enters the queue
    and is classified.

    This is the online mode. The paper instead goes over the test set for up to 500 epochs and then scores it:
    `adapt_whole_set`. Its code stops, and lowers its rate, by the error on the TEST LABELS; here no label can
    enter. Other departures, each on purpose: the queue is copied before the batch enters (see `FeatureQueue`) and
    used before it is full (`wait_for_queue=True`: as there); moments are of plain images, not of crops; the
    contrastive loss has no base temperature (set `contrast=0.5 / 0.07` to have the official 7.14 times); BatchNorm
    uses the statistics of the batch, for the source's moments too (`policy="source"`: the stored ones), so the
    control is BatchNorm adaptation of this model.

    `fit_source(batches)` comes first: it takes the moments of source images, without labels. Or pass `source`, the
    moments another adapter found (its attribute `source`): so a clinic gets numbers, not images.

    Args: views: a function of (images, generator) to two views (2B, C, H, W), the ones the network was trained
    with, as `pretraining.simclr.TwoViews()`. Raises SeminarError for a network without projection head, moments
    that are missing or of other widths, a contrast without views, and bad settings. Defaults: rate and queue by
    the paper's order of magnitude (1e-4 for CIFAR-100; its 1e-2 for CIFAR-10 goes with hundreds of epochs, not
    with one look), weights those of its CIFAR-10.
    """

    returned = "logits of one more forward, after the last update"
    needs_source = True
    prepared = "simclr"

    def __init__(
        self,
        model: nn.Module,
        views: Callable[[Tensor, Generator], Tensor] | None = None,
        lr: float = 1e-4,
        steps: int = 1,
        contrast: float = 1.0,
        align_features: float = 0.05,
        align_projections: float = 0.2,
        queue_length: int = 256,
        wait_for_queue: bool = False,
        temperature: float = 0.5,
        policy: str = "batch",
        source: Mapping[str, SourceMoments] | None = None,
        seed: int = 0,
    ):
        check_prepared(model, "simclr", "TTT++")
        check_settings(steps, lr)
        if views is None and contrast:
            raise SeminarError("TTT++ contrasts views: give the training's, views=TwoViews(), or contrast=0")
        self.lr, self.steps, self.policy, self.views, self.seed = lr, steps, policy, views, seed
        self.contrast, self.temperature, self.wait_for_queue = contrast, temperature, wait_for_queue
        self.weights = {"features": align_features, "projections": align_projections}
        widths = feature_widths(model)
        self.queues = {space: FeatureQueue(queue_length, width).to(like(model)) for space, width in widths.items()}
        super().__init__(model)
        if source is not None:
            check_moments(widths, source)
            self.source = {space: source[space].to(like(model)) for space in SPACES}
            self.needs_source = False

    def configure(self) -> None:
        """BatchNorm uses the statistics that the policy names."""
        set_norm_policy(self.model, self.policy)

    def learn_source(self, batches: Sequence[Tensor]) -> None:
        """The offline step: the moments of both feature spaces, of plain images (official: of augmented crops)."""
        with torch.no_grad():
            outputs = [self.model(x, auxiliary=True) for x in batches]  # pairs (B, d), (B, D)
        self.source = {space: SourceMoments.of(pair[i] for pair in outputs) for i, space in enumerate(SPACES)}

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """The whole encoder; classifier and projection head stand still."""
        return self.model.encoder_parameters()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum 0.9 (paper)."""
        return build_optimizer("sgd", self.parameters_to_adapt(), self.lr)

    def forget(self) -> None:
        """Empty the queues."""
        for queue in self.queues.values():
            queue.clear()

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W), remember its features, return the logits (B, K) of the moved encoder."""
        for _ in range(self.steps):
            current = dict(zip(SPACES, self.model(x, auxiliary=True)))  # (B, d), (B, D)
            loss = self.alignment_loss(current) + self.contrast * self.contrast_loss(x)
            self.descend(loss)
        for space in SPACES:
            self.queues[space].push(current[space])  # only now: no batch is in the moments twice
        with torch.no_grad():
            return self.model(x)

    def contrast_loss(self, x: Tensor) -> Tensor:
        """The contrastive loss of two views of every image."""
        if not self.contrast:
            return x.new_zeros(())
        projected, _ = self.model(self.views(x, self.generator), auxiliary=True)  # (2B, d)
        pairs = torch.stack(projected.chunk(2), dim=1)  # (B, 2, d)
        return contrastive_loss(pairs, temperature=self.temperature)

    def alignment_loss(self, current: Mapping[str, Tensor]) -> Tensor:
        """Distance to the source of the current features (B, d) with those of the queue, over both spaces."""
        total = 0.0
        for space, features in current.items():
            queue = self.queues[space]
            past = queue.snapshot() if queue.full or not self.wait_for_queue else features[:0].detach()
            together = torch.cat([features, past.to(features)])  # (B + n, d): gradient through the first B rows
            total = total + sum(self.source[space].distance(together, self.weights[space]))
        return total

    def adapt_whole_set(self, x: Tensor, epochs: int, batch_size: int = 64) -> Tensor:
        """The paper's mode, NOT online: `epochs` passes over all test images (N, C, H, W), then score them all.

        Every image is seen before the first is diagnosed, so compare it with methods that may do the same. The
        number of epochs is fixed beforehand. The official first epochs, which only refresh running statistics,
        fall away: here statistics are the batch's. Returns logits (N, K) in the order of x. Raises SeminarError
        for epochs < 1.
        """
        if epochs < 1 or batch_size < 1:
            raise SeminarError(f"epochs and batch_size are at least 1, got {epochs} and {batch_size}")
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=self.generator).split(batch_size):
                self(x[index.to(x.device)])
        with torch.no_grad():
            return torch.cat([self.model(self.placed(batch)) for batch in x.split(batch_size)]).to(x)


def like(model: nn.Module) -> Tensor:
    """A tensor with the device and the dtype of a model."""
    return next(model.parameters())


def feature_widths(model: TwoHeads) -> dict[str, int]:
    """The width of both feature spaces."""
    return {"features": model.num_features, "projections": model.head[-1].out_features}


def check_moments(widths: Mapping[str, int], source: Mapping[str, SourceMoments]) -> None:
    """Raise SeminarError unless there are moments of both feature spaces, of these widths."""
    missing = [space for space in SPACES if not isinstance(source, Mapping) or space not in source]
    if missing:
        raise SeminarError(f"TTT++ needs source moments of {' and '.join(missing)}: make them with fit_source")
    came = {space: len(source[space].mean) for space in SPACES}
    if came != dict(widths):
        raise SeminarError(f"the source moments are of widths {came}, this model's features of {dict(widths)}")
