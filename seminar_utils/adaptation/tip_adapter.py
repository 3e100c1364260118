"""Tip-Adapter: labelled images as a memory beside the zero-shot classifier.

Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022 (arXiv
2111.03930). logits = exp(scale) f W^T + alpha exp(-beta (1 - f F^T)) L: F are the features of the labelled images,
L their labels as one-hot rows. Nothing is trained; Tip-Adapter-F then fine-tunes F. Offline: labelled images are
needed. No prompt is learnt here: it is the neighbour that a learnt prompt must beat.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .coop import check_labels
from .prompt_checks import Clip
from .prompts import image_features


class TipAdapter(nn.Module):
    """Zero-shot logits and a vote of the labelled images; `keys` is what Tip-Adapter-F moves.

    Args: classifier: the zero-shot text features (K, E); keys: features of the labelled images (N, E); labels
    (N,); scale: exp(logit_scale) of the CLIP; alpha: weight of the vote; beta: how sharply it falls with the
    distance. Defaults: the paper's starting values, which it then tunes on validation images.
    Raises SeminarError when shapes do not fit or there is no labelled image.
    """

    def __init__(
        self,
        classifier: Tensor,
        keys: Tensor,
        labels: Tensor | np.ndarray,
        scale: float,
        alpha: float = 1.0,
        beta: float = 5.5,
    ):
        super().__init__()
        if keys.ndim != 2 or not len(keys) or keys.shape[1:] != classifier.shape[1:]:
            raise SeminarError(
                "Tip-Adapter remembers at least one labelled image as wide as the classes' features, got "
                f"{tuple(keys.shape)} beside {tuple(classifier.shape)}"
            )
        if alpha < 0 or beta < 0:
            raise SeminarError(f"alpha and beta are not negative, got {alpha} and {beta}")
        self.scale, self.alpha, self.beta = float(scale), alpha, beta
        labels = check_labels(labels, len(keys), len(classifier)).to(keys.device)
        self.register_buffer("classifier", F.normalize(classifier.detach(), dim=1))  # (K, E)
        self.register_buffer("one_hot", F.one_hot(labels, len(classifier)).to(keys))  # (N, K)
        self.keys = nn.Parameter(F.normalize(keys.detach(), dim=1).clone(), requires_grad=False)  # (N, E)

    def forward(self, features: Tensor) -> Tensor:
        """Image features (B, E) -> logits (B, K)."""
        features = F.normalize(features, dim=1)
        affinity = torch.exp(-self.beta * (1 - features @ self.keys.T))  # (B, N)
        return self.scale * features @ self.classifier.T + self.alpha * affinity @ self.one_hot  # (B, K)


@torch.no_grad()
def tip_adapter(
    clip: Clip, classifier: Tensor, x: Tensor, labels: Tensor | np.ndarray, alpha: float = 1.0, beta: float = 5.5
) -> TipAdapter:
    """The training-free one, from labelled images (N, C, H, W) or their features (N, E); it takes features."""
    return TipAdapter(classifier, image_features(clip, x), labels, clip.logit_scale.exp(), alpha, beta)


def tip_adapter_f(
    start: TipAdapter, lr: float = 1e-3, epochs: int = 20, batch_size: int = 256, seed: int = 0
) -> TipAdapter:
    """Tip-Adapter-F: a copy of `start` whose keys were fine-tuned on the remembered images themselves.

    AdamW with eps 1e-4 and a cosine, as in the official code (which shows random crops; here images as they are).
    """
    if epochs < 1 or batch_size < 1 or lr < 0:
        raise SeminarError(
            f"fine-tuning needs epochs, batch_size >= 1 and lr >= 0, got {epochs}, {batch_size}, {lr}"
        )
    features, labels = start.keys.detach().clone(), start.one_hot.argmax(dim=1)  # (N, E), (N,)
    tuned = TipAdapter(start.classifier, features, labels, start.scale, start.alpha, start.beta)
    tuned.keys.requires_grad_(True)
    optimizer = torch.optim.AdamW([tuned.keys], lr=lr, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(batch_size):
            loss = F.cross_entropy(tuned(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return tuned.requires_grad_(False)
