"""T3A: adjust the classifier, not the features.

Iwasawa & Matsuo, Test-time classifier adjustment module for model-agnostic domain generalization, NeurIPS 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter
from .heads import features_and_logits, find_head
from .norm import set_norm_policy
from .tent import softmax_entropy


class T3A(Adapter):
    """Replace each class's weights by the mean direction of the surest features that were given to that class.

    The support set starts with the rows of the linear classifier, each labelled and rated by the classifier
    itself. Every batch joins it, with the model's own labels and entropies, BEFORE it is predicted. Per class the
    `filter_k` supports of lowest entropy stay (the initial row competes, too). A class vector is the normalised
    sum of its normalised supports; the logit is feature . class vector. No gradient: nothing in the network moves.

    Args: filter_k: M in the paper (1, 5, 20, 50, 100 or no limit there); policy: of BatchNorm; head: the name of
    the classifier, else found. Raises SeminarError for filter_k < 1 or a model without a linear classifier.
    A class whose row was rated as another class has no support until an image brings one: its logit is 0.
    """

    returned = "feature . class vector, after this batch has joined the supports"

    def __init__(self, model: nn.Module, filter_k: int = 100, policy: str = "source", head: str | None = None):
        if filter_k < 1:
            raise SeminarError(f"T3A keeps at least one support a class, got filter_k={filter_k}")
        self.filter_k, self.policy, self.head_name = filter_k, policy, head
        super().__init__(model)

    def configure(self) -> None:
        """Only the statistics of BatchNorm may be other than the source's."""
        set_norm_policy(self.model, self.policy)
        self.head = find_head(self.model, self.head_name)[1]

    @torch.no_grad()
    def forget(self) -> None:
        """The supports: the rows of the classifier."""
        rows = self.head.weight.detach().clone()  # (K, D)
        logits = self.head(rows)  # (K, K)
        self.supports, self.labels, self.entropies = rows, logits.argmax(dim=1), softmax_entropy(logits)

    def join(self, features: Tensor, logits: Tensor) -> None:
        """Add features (B, D), then keep the surest of each class, class by class, surest first."""
        supports = torch.cat([self.supports, features])  # (S + B, D)
        labels = torch.cat([self.labels, logits.argmax(dim=1)])  # (S + B,)
        entropies = torch.cat([self.entropies, softmax_entropy(logits)])  # (S + B,)
        order = entropies.argsort(stable=True)
        keep = torch.cat([order[labels[order] == k][: self.filter_k] for k in range(logits.shape[1])])
        self.supports, self.labels, self.entropies = supports[keep], labels[keep], entropies[keep]

    @torch.no_grad()
    def adapt_batch(self, x: Tensor) -> Tensor:
        """Predict x (B, C, H, W) by the adjusted classifier: (B, K)."""
        features, logits = features_and_logits(self.model, self.head, x)  # (B, D), (B, K)
        self.join(features, logits)
        members = F.one_hot(self.labels, logits.shape[1]).to(features.dtype)  # (S, K)
        class_vectors = F.normalize(F.normalize(self.supports, dim=1).T @ members, dim=0)  # (D, K)
        return features @ class_vectors
