"""A classifier with a second, self-supervised head on the same encoder: the letter Y of test-time training.

Sun et al., Test-time training with self-supervision for generalization under distribution shifts, ICML 2020
(arXiv 1909.13231, figure 1): what the two tasks share is the encoder; at test time, without labels, the second
task moves it. The course's two: rotation (TTT) and contrast (TTT++).
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from .resnet import ResNet, resnet_small
from .rotation import TURNS
from .simclr import projection_head

TASKS = ("rotation", "simclr")


class MapMean(nn.Module):
    """The mean over the map: (B, C, h, w) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        return x.mean(dim=(2, 3))


class TwoHeads(nn.Module):
    """A ResNet and, branching off after its first `shared_stages` stages, a `head` for the task `task`.

    `head` maps the shared map (B, c, h, w) to the outputs (B, d) of the second task. The parameters that both
    tasks use, the encoder, are what test-time training may move.
    """

    def __init__(self, backbone: ResNet, head: nn.Module, shared_stages: int, task: str):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.shared_stages, self.task = shared_stages, task

    @property
    def num_features(self) -> int:
        """Width of what the classifier reads."""
        return self.backbone.num_features

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the features (B, num_features) that the classifier reads."""
        return self.backbone.embed(x)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> logits (B, K); with `auxiliary`: outputs (B, d) and shared features (B, c)."""
        if not auxiliary:
            return self.backbone(x)
        shared = self.backbone.forward_features(x, self.shared_stages)  # (B, c, h, w)
        return self.head(shared), shared.mean(dim=(2, 3))

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters both tasks use, by name: stem and shared stages."""
        parts = ("conv1.", "bn1.", *(f"layer{i + 1}." for i in range(self.shared_stages)))
        starts = tuple(f"backbone.{part}" for part in parts)
        return {name: p for name, p in self.named_parameters() if name.startswith(starts)}


def with_rotation_head(backbone: ResNet) -> TwoHeads:
    """A ResNet with a rotation head: its last stage is doubled, those before are shared (TTT, section 3)."""
    branch = copy.deepcopy(backbone.get_submodule(f"layer{backbone.num_stages}"))
    head = nn.Sequential(branch, MapMean(), nn.Linear(backbone.num_features, TURNS))
    return TwoHeads(backbone, head, backbone.num_stages - 1, "rotation")


def with_projection_head(backbone: ResNet, dim: int = 32) -> TwoHeads:
    """A ResNet with a projection head of `dim` outputs; the whole encoder is shared (TTT++, figure 2)."""
    head = nn.Sequential(MapMean(), *projection_head(backbone.num_features, dim))
    return TwoHeads(backbone, head, backbone.num_stages, "simclr")


def resnet_small_rotation(num_classes: int = 6, in_chans: int = 1, norm: str = "bn") -> TwoHeads:
    """The small ResNet with a rotation head."""
    return with_rotation_head(resnet_small(num_classes, in_chans, norm))


def resnet_small_simclr(num_classes: int = 6, in_chans: int = 1, norm: str = "bn", dim: int = 32) -> TwoHeads:
    """The small ResNet with a projection head."""
    return with_projection_head(resnet_small(num_classes, in_chans, norm), dim)
