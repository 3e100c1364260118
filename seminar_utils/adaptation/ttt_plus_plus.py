"""TTT++: contrast the incoming images, and keep their features where the source's were.

Liu et al., TTT++: When does self-supervised test-time training fail or thrive?, NeurIPS 2021. Self-supervision alone
may move the features away from the classifier; the alignment holds them (section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Generator, Tensor, nn

from ..models.simclr import contrastive_loss
from ..models.two_heads import TwoHeads
from ..runtime import SeminarError
from .base import Adapter
from .feature_alignment import FeatureQueue, SourceMoments
from .norm import norm_layers, use_batch_statistics
from .ttt import check_prepared, check_settings

SPACES = ("features", "projections")  # behind the encoder, and behind the projection head


@torch.no_grad()
def source_moments(
    model: TwoHeads, batches: Iterable[Tensor], drop_first: bool = False
) -> dict[str, SourceMoments]:
    """The offline step: moments of both feature spaces over batches of SOURCE images (B, C, H, W), in eval mode.

    Ours: plain images. The official code takes the augmented crops of its training loader.
    Raises SeminarError for a model without a projection head, or for fewer than two batches.
    """
    check_prepared(model, "simclr", "source_moments")
    was_training = model.training
    model.eval()
    outputs = [model(x, auxiliary=True) for x in batches]  # pairs (B, D), (B, d)
    model.train(was_training)
    return {space: SourceMoments.of((pair[i] for pair in outputs), drop_first) for i, space in enumerate(SPACES)}


class TTTPlusPlus(Adapter):
    """Contrastive loss of two views plus distance of the feature moments to the source's (eq. 3 to 6).

    What moves: the whole encoder, heads frozen, SGD with momentum 0.9. Per batch, `steps` times: (1) the contrastive
    loss of two views of every image; (2) the moments of the batch's features, together with a queue of past detached
    ones, against the source's, behind the encoder (weight `align_features`) and behind the projection head
    (`align_projections`); backward through the current batch only. Then the batch enters the queue and is classified.

    This is the online mode. The paper instead goes over the test set for up to 500 epochs and then scores it:
    `adapt_whole_set`. Its code stops, and lowers its rate, by the error on the TEST LABELS; here no label can enter.
    Other departures, each on purpose: the queue is copied before the batch enters (see `FeatureQueue`) and used
    before it is full (`wait_for_queue=True`: as there); moments are of plain images, not of crops; the contrastive
    loss has no base temperature (set `contrast=0.5 / 0.07` to have the official 7.14 times); BatchNorm uses the
    statistics of the batch (`bn="source"`: the stored ones), so the control is BatchNorm adaptation of this model.

    Args: source: from `source_moments`; views: a function of (images, generator) to two views (2B, C, H, W), the
    ones the network was trained with (`pretraining.simclr.TwoViews()`). Raises SeminarError for a network without
    projection head, missing moments or moments of other widths, and bad settings.
    """

    returned = "logits of one more forward, after the last update"

    def __init__(
        self,
        model: nn.Module,
        source: Mapping[str, SourceMoments],
        views: Callable[[Tensor, Generator], Tensor],
        lr: float = 1e-3,
        steps: int = 1,
        contrast: float = 1.0,
        align_features: float = 0.05,
        align_projections: float = 0.2,
        queue_length: int = 256,
        wait_for_queue: bool = False,
        temperature: float = 0.5,
        bn: str = "batch",
        seed: int = 0,
    ):
        check_prepared(model, "simclr", "TTT++")
        check_settings(steps, lr, bn)
        check_moments(model, source)
        self.lr, self.steps, self.bn, self.views, self.seed = lr, steps, bn, views, seed
        self.contrast, self.temperature, self.wait_for_queue = contrast, temperature, wait_for_queue
        self.weights = {"features": align_features, "projections": align_projections}
        like = next(model.parameters())
        self.source = {space: source[space].to(like) for space in SPACES}
        self.queues = {space: FeatureQueue(queue_length, len(self.source[space].mean)) for space in SPACES}
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm uses the statistics of the batch, if so asked."""
        if self.bn == "batch":
            for layer in norm_layers(self.model, ("bn",)).values():
                use_batch_statistics(layer)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """The whole encoder; classifier and projection head stand still."""
        return self.model.encoder_parameters()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum 0.9 (paper)."""
        return torch.optim.SGD(self.parameters_to_adapt().values(), lr=self.lr, momentum=0.9)

    def reset(self) -> None:
        """Also empty the queues and start the random views anew."""
        super().reset()
        self.generator = Generator().manual_seed(self.seed)
        for queue in self.queues.values():
            queue.clear()

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W), remember its features, return the logits (B, K) of the moved encoder."""
        for _ in range(self.steps):
            current = dict(zip(SPACES, self.model(x, auxiliary=True)))  # (B, D), (B, d)
            loss = self.alignment_loss(current) + self.contrast * self.contrast_loss(x)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        for space in SPACES:
            self.queues[space].push(current[space])  # only now: no batch is in the moments twice
        with torch.no_grad():
            return self.model(x)

    def contrast_loss(self, x: Tensor) -> Tensor:
        """The contrastive loss of two views of every image."""
        if not self.contrast:
            return x.new_zeros(())
        _, projected = self.model(self.views(x, self.generator), auxiliary=True)  # (2B, d)
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

        Every image is seen before the first is diagnosed, so compare it with methods that may do the same. The number
        of epochs is fixed beforehand. The official first epochs, which only refresh running statistics, fall away:
        here statistics are the batch's. Returns logits (N, K) in the order of x. Raises SeminarError for epochs < 1.
        """
        if epochs < 1 or batch_size < 1:
            raise SeminarError(f"epochs and batch_size are at least 1, got {epochs} and {batch_size}")
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=self.generator).split(batch_size):
                self(x[index.to(x.device)])
        like = next(self.model.parameters())
        with torch.no_grad():
            return torch.cat([self.model(batch.to(like)) for batch in x.split(batch_size)])


def check_moments(model: TwoHeads, source: Mapping[str, SourceMoments]) -> None:
    """Raise SeminarError unless the moments are there and of the widths of this model's feature spaces."""
    missing = SPACES if not isinstance(source, Mapping) else [s for s in SPACES if s not in source]
    if missing:
        raise SeminarError(f"TTT++ needs source moments of {' and '.join(missing)}: make them with source_moments")
    widths = {"features": model.num_features, "projections": model.head[-1].out_features}
    came = {space: len(source[space].mean) for space in SPACES}
    if came != widths:
        raise SeminarError(f"the source moments are of widths {came}, this model's features of {widths}")
