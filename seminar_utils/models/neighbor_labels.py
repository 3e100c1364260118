"""Labels inferred from neighbours: the network that variational neighbour labelling adds to a classifier.

Ambekar et al., Probabilistic test-time generalization by variational neighbor-labeling, 2023 (arXiv 2307.04033).

From the paper: the pseudo-labels of a test batch are a distribution; a latent w, which summarises the whole batch
(the neighbours), carries what is uncertain; w has a prior p_phi(w | X_t) at test time and, in training only, a
posterior q_phi(w | X_t, Y_t) that sees the labels; labels are sampled from p_phi(y | w, x).

Our reading, as no code of the authors was published: w is one Gaussian vector a class, made by a small MLP from
that class's prototype, the mean feature of the batch weighted by the (pseudo-)label probabilities; prior and
posterior are the same MLP, fed with pseudo-labels or with labels; the label of an image is the softmax of the
similarity of its projected feature to every class's w.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from ..runtime import SeminarError
from .resnet import ResNet, resnet_small


def class_prototypes(features: Tensor, probs: Tensor, floor: float = 1e-3) -> Tensor:
    """Features (B, D), probabilities (B, K) -> the mean feature of every class (K, D), weighted by probability.

    A class that nobody believes in has no mean: `floor` mixes in the mean of the whole batch, with the weight
    of that fraction of the batch, so that its prototype stays finite and says nothing.
    """
    weight = probs + floor  # (B, K)
    return (weight.T @ features) / weight.sum(dim=0)[:, None]  # (K, D)


class LabelNetwork(nn.Module):
    """phi: prototypes to a Gaussian latent w, and w with a feature to a soft label.

    Args: width: D, of the features; num_classes: K; dim: of w, one vector a class. Raises SeminarError when
    features or probabilities of another size come in.
    """

    def __init__(self, width: int, num_classes: int, dim: int = 32):
        super().__init__()
        self.width, self.num_classes, self.dim = width, num_classes, dim
        self.norm = nn.LayerNorm(width)  # the scale of features differs between scanners
        self.to_latent = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * dim))
        self.to_query = nn.Linear(width, dim)
        self.class_code = nn.Parameter(torch.zeros(num_classes, 2 * dim))  # what a prototype alone cannot know

    def latent(self, features: Tensor, probs: Tensor) -> Normal:
        """The Gaussian of w (K, dim): the prior for pseudo-labels (B, K), the posterior for one-hot labels."""
        if features.shape[1] != self.width or probs.shape != (len(features), self.num_classes):
            raise SeminarError(
                f"this label network was made for features (B, {self.width}) and {self.num_classes} classes, "
                f"got features {tuple(features.shape)} and probabilities {tuple(probs.shape)}"
            )
        prototypes = class_prototypes(self.norm(features), probs)  # (K, D)
        mean, log_std = (self.to_latent(prototypes) + self.class_code).chunk(2, dim=1)  # (K, dim) each
        return Normal(mean, log_std.clamp(-5, 2).exp())

    def labels(self, features: Tensor, w: Tensor) -> Tensor:
        """Log-probabilities (B, K) of the labels of features (B, D), given one w (K, dim)."""
        query = self.to_query(self.norm(features))  # (B, dim)
        return (query @ w.T / self.dim**0.5).log_softmax(dim=1)  # (B, K)


def sample(latent: Normal, generator: Generator | None = None) -> Tensor:
    """One draw of w, written as mean + deviation * noise so that gradients reach phi (reparameterised).

    The noise comes from a CPU generator: the same on every device.
    """
    noise = torch.randn(latent.mean.shape, generator=generator, dtype=torch.float32)
    return latent.mean + latent.stddev * noise.to(latent.mean)


class NeighborLabelNet(nn.Module):
    """A ResNet classifier (theta) with the label network (phi) that was meta-trained beside it."""

    task = "neighbor_labels"

    def __init__(self, backbone: ResNet, label_network: LabelNetwork):
        super().__init__()
        self.backbone, self.label_network = backbone, label_network

    def forward(self, x: Tensor, with_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> logits (B, K), or with `with_features` also the features (B, D)."""
        features = self.backbone.embed(x)  # (B, D)
        logits = self.backbone.fc(features)  # (B, K)
        return (logits, features) if with_features else logits


def with_label_network(backbone: ResNet, dim: int = 32) -> NeighborLabelNet:
    """A ResNet classifier with a label network that fits it."""
    return NeighborLabelNet(backbone, LabelNetwork(backbone.fc.in_features, backbone.fc.out_features, dim))


def resnet_small_neighbors(num_classes: int = 6, in_chans: int = 1, norm: str = "bn") -> NeighborLabelNet:
    """The small ResNet with a label network."""
    return with_label_network(resnet_small(num_classes, in_chans, norm))
