"""SHOT-IM: information maximisation with a frozen classifier. Liang et al., ICML 2020 (arXiv 2002.08546)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .heads import find_head
from .norm import set_norm_policy
from .tent import class_rows, softmax_entropy


def information_maximisation(rows: Tensor) -> Tensor:
    """Be sure on each image, and diverse over all: mean entropy - entropy of the mean prediction.

    rows: logits (N, K); returns a scalar in [-ln K, 0], minus the mutual information of image and answer.
    """
    mean = rows.softmax(dim=1).mean(dim=0)  # (K,)
    return softmax_entropy(rows).mean() + torch.xlogy(mean, mean).sum()


class SHOTIM(Adapter):
    """Move the whole feature extractor so that the frozen classifier's answers are sure and of all classes.

    The second term forbids the collapse to one class that entropy alone invites; it also assumes that all classes
    are about equally frequent in the batch, which is false in a clinic whose prevalence changes, and in a batch of
    one the two terms cancel exactly. The paper runs many epochs over the target set, with pseudo-labels from
    clusters as well; this is its information-maximisation part, one step a batch, online. Returns the logits
    from before the update. In segmentation each pixel is a sample.

    Defaults: the paper's backbone rate (SGD 0.001, momentum 0.9, weight decay 0.001). Raises SeminarError for a
    negative rate, steps < 1, or a model in which nothing but the classifier is left.
    """

    returned = "logits of the last forward, before the last update"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        steps: int = 1,
        weight_decay: float = 1e-3,
        policy: str = "batch",
        head: str | None = None,
    ):
        if steps < 1:
            raise SeminarError(f"SHOT needs at least one step a batch, got {steps}")
        self.lr, self.steps, self.weight_decay = lr, steps, weight_decay
        self.policy, self.head_name = policy, head
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm uses the batch."""
        set_norm_policy(self.model, self.policy)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """Everything but the classifier: the "hypothesis" stays where the source put it."""
        frozen = find_head(self.model, self.head_name, (nn.Linear, nn.Conv2d))[0] + "."
        found = {name: p for name, p in self.model.named_parameters() if not name.startswith(frozen)}
        if not found:
            raise SeminarError("SHOT moves the features, and this model has nothing but a classifier")
        return found

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum 0.9."""
        return build_optimizer("sgd", self.parameters_to_adapt(), self.lr, weight_decay=self.weight_decay)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W); returns the logits (B, K) of the last forward."""
        for _ in range(self.steps):
            logits = self.model(x)  # (B, K)
            self.descend(information_maximisation(class_rows(logits)))
        return logits
