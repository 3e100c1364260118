"""SimCLR: two views of one image belong together, views of different images apart.

Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020 (arXiv 2002.05709,
eq. 1, "NT-Xent"); Khosla et al., Supervised contrastive learning, NeurIPS 2020 (arXiv 2004.11362, eq. 2), for
views that share a label. Without labels the second is the first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError


def projection_head(width: int, dim: int = 32) -> nn.Sequential:
    """Features (B, width) -> (B, dim): the two-layer head that the loss is measured behind (section 4.2)."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))


def contrastive_loss(
    features: Tensor,
    labels: Tensor | None = None,
    temperature: float = 0.5,
    base_temperature: float | None = None,
    first_view_only: bool = False,
) -> Tensor:
    """The contrastive loss of features (B, V, d): V views of each image, every view an anchor. Returns a scalar.

    Each anchor's positives are the other views of its image, or with `labels` (B,) all other views of its label.
    Loss: minus the log-softmax of similarity / temperature at the positives, the anchor itself left out, averaged
    over positives, then over anchors. `base_temperature` multiplies it by temperature / base_temperature; the
    official code of SupCon, and so of TTT++, has 0.07 there: at temperature 0.5 that is 7.14 times the plain loss,
    a learning rate in disguise. Default: none, the plain loss. `first_view_only`: only view 0 of each is an
    anchor.

    Features are L2-normalised here. Raises SeminarError unless they are (B, V >= 2, d), or for a temperature <= 0.
    """
    check_views(features, labels, temperature, base_temperature)
    B, V, _ = features.shape
    views = F.normalize(features, dim=2).transpose(0, 1).reshape(V * B, -1)  # (V*B, d), view after view
    anchors = views[:B] if first_view_only else views  # (A, d)
    own = torch.arange(len(anchors), device=views.device)[:, None] == torch.arange(V * B, device=views.device)
    image = torch.arange(B, device=views.device) if labels is None else labels.to(views.device)  # (B,)
    image = image.repeat(V)  # (V*B,)
    positive = (image[: len(anchors), None] == image) & ~own  # (A, V*B)
    similarity = (anchors @ views.T / temperature).masked_fill(own, float("-inf"))  # (A, V*B)
    log_probs = similarity.log_softmax(dim=1).masked_fill(~positive, 0.0)  # (A, V*B)
    loss = -(log_probs.sum(dim=1) / positive.sum(dim=1)).mean()
    return loss * (temperature / (base_temperature or temperature))


def check_views(features: Tensor, labels: Tensor | None, temperature: float, base: float | None) -> None:
    """Raise SeminarError unless a contrastive loss can be computed."""
    if features.ndim != 3 or features.shape[1] < 2 or len(features) == 0:
        raise SeminarError(
            f"a contrastive loss needs features (B, V, d) of V >= 2 views, got {tuple(features.shape)}"
        )
    if labels is not None and labels.shape != features.shape[:1]:
        raise SeminarError(f"one label an image: expected ({len(features)},), got {tuple(labels.shape)}")
    if temperature <= 0 or (base is not None and base <= 0):
        raise SeminarError(f"temperatures are positive, got {temperature} and {base}")
