"""Variational neighbour labels: pseudo-labels as a distribution, inferred from the batch around each image.

Ambekar et al., Probabilistic test-time generalization by variational neighbor-labeling, 2023 (arXiv 2307.04033).
The authors published no code. What is the paper's: the three distributions (labels given a latent, the latent
given the batch, the model given the labels), the one gradient step per batch as a MAP estimate, and meta-training
in which the labels must prove their worth (`pretraining/neighbor_labels.py`). What is our reading: how w is made
and read (`models/neighbor_labels.py`), one sample by default, and a soft-label cross-entropy for the step. No
number of the paper can be expected here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.neighbor_labels import NeighborLabelNet, sample
from ..runtime import SeminarError, unknown_name
from .base import Adapter, build_optimizer
from .norm import set_norm_policy

LABELS = ("sampled", "mean", "hard", "own")


class NeighborLabels(Adapter):
    """Infer soft labels of the batch from its neighbours, take one step towards them, predict.

    Per batch: (1) the source model's probabilities weight the features into one prototype a class, and the prior
    gives w; (2) labels yhat given w and each image; (3) theta_t = theta_s - lr * gradient of CE(yhat, prediction);
    (4) predict with theta_t. What moves: the whole classifier (backbone and its linear layer); the label network
    stands still. Every batch starts from theta_s, as in the paper (`episodic=False`: the steps accumulate).

    `labels` is for the ablation: "sampled" (one draw of w, the method), "mean" (w at its mean), "hard" (the most
    likely label of a sampled one), "own" (the model's own most likely class: plain pseudo-labels, no label
    network; its own soft answer would have no gradient at all). `neighbors=False` shows the prototypes of a batch
    where all classes are equally likely everywhere, so they say nothing. `samples`: the step is taken on the mean
    loss of that many draws.

    Args: model: a NeighborLabelNet after meta-training; lr: the inner rate it was trained with; policy: which
    BatchNorm statistics (norm.py). Raises SeminarError for another model, unknown `labels`, samples < 1, lr < 0.
    """

    returned = "logits of one more forward, after the step"
    prepared = "neighbors"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.02,
        labels: str = "sampled",
        neighbors: bool = True,
        samples: int = 1,
        episodic: bool = True,
        policy: str = "batch",
        seed: int = 0,
    ):
        check_label_network(model)
        if samples < 1 or lr < 0:
            raise SeminarError(f"neighbour labels need samples >= 1 and lr >= 0, got {samples} and {lr}")
        if labels not in LABELS:
            raise unknown_name("kind of labels", labels, LABELS)
        self.lr, self.labels, self.neighbors, self.samples = lr, labels, neighbors, samples
        self.episodic, self.policy, self.seed = episodic, policy, seed
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm uses the statistics that the policy names."""
        set_norm_policy(self.model, self.policy)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """Backbone and classifier; not the label network."""
        return {f"backbone.{name}": p for name, p in self.model.backbone.named_parameters()}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Plain SGD: one step is exactly theta - lr * gradient."""
        return build_optimizer("sgd", self.parameters_to_adapt(), self.lr, momentum=0.0)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Step towards the neighbours' labels of x (B, C, H, W); logits (B, K) after it."""
        if self.episodic:
            self.restore()
        logits, features = self.model(x, with_features=True)  # (B, K), (B, D)
        targets = self.infer_labels(features.detach(), logits.detach())  # (S, B, K)
        loss = torch.stack([F.cross_entropy(logits, target) for target in targets]).mean()
        self.descend(loss)
        with torch.no_grad():
            return self.model(x)

    @torch.no_grad()
    def infer_labels(self, features: Tensor, logits: Tensor) -> Tensor:
        """Soft labels (S, B, K) of features (B, D), whose pseudo-labels come from logits (B, K)."""
        probs = logits.softmax(dim=1)  # (B, K)
        if self.labels == "own":
            return F.one_hot(probs.argmax(dim=1), probs.shape[1]).to(probs)[None]
        network = self.model.label_network
        seen = probs if self.neighbors else torch.full_like(probs, 1 / probs.shape[1])
        prior = network.latent(features, seen)  # w: (K, d)
        if self.labels == "mean":
            return network.labels(features, prior.mean).exp()[None]
        draws = [sample(prior, self.generator) for _ in range(self.samples)]
        soft = torch.stack([network.labels(features, w).exp() for w in draws])  # (S, B, K)
        return F.one_hot(soft.argmax(dim=2), soft.shape[2]).to(soft) if self.labels == "hard" else soft


def check_label_network(model: nn.Module) -> None:
    """Raise SeminarError unless the model carries a label network that fits its classifier."""
    if not isinstance(model, NeighborLabelNet):
        raise SeminarError(
            f"neighbour labels need a classifier meta-trained with a label network (resnet_small_neighbors), got "
            f"{type(model).__name__}"
        )
    head, network = model.backbone.fc, model.label_network
    if (head.in_features, head.out_features) != (network.width, network.num_classes):
        raise SeminarError(
            f"the label network is for {network.num_classes} classes and {network.width} features, the classifier "
            f"has {head.out_features} and {head.in_features}"
        )
