"""ResNet: convolution blocks that learn a correction to their input, y = F(x) + x.

He et al., Deep Residual Learning for Image Recognition, 2015 (arXiv 1512.03385, eq. 1-2, table 1).
Parameter names are torchvision's, so that its official weights load without renaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .layers import LayerNorm2d, check_images

NORMS = ("bn", "gn", "ln")


def make_norm(kind: str, channels: int) -> nn.Module:
    """A normalisation layer for maps (B, C, H, W).

    "bn" over batch and pixels, the only one that remembers statistics; "gn" over pixels and groups of
    channels (32 groups, as in the ResNet-50-GN of timm that the test-time literature uses; fewer when
    there are few channels); "ln" over the channels of each pixel. Raises SeminarError on another kind.
    """
    if kind == "bn":
        return nn.BatchNorm2d(channels)
    if kind == "gn":
        return nn.GroupNorm(min(32, channels // 2), channels)
    if kind == "ln":
        return LayerNorm2d(channels, eps=1e-6)
    raise unknown_name("norm", kind, NORMS)


def conv3x3(in_chans: int, out_chans: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias (the norm after it has one) that keeps the size at stride 1."""
    return nn.Conv2d(in_chans, out_chans, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_chans: int, out_chans: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias: mixes channels, not pixels."""
    return nn.Conv2d(in_chans, out_chans, kernel_size=1, stride=stride, bias=False)


def make_shortcut(in_chans: int, out_chans: int, stride: int, norm: str) -> nn.Module | None:
    """What the input passes on its way around a block: None (the identity) unless its shape changes."""
    if stride == 1 and in_chans == out_chans:
        return None
    return nn.Sequential(conv1x1(in_chans, out_chans, stride), make_norm(norm, out_chans))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the first one carries the stride."""

    expansion = 1

    def __init__(self, in_chans: int, width: int, stride: int = 1, norm: str = "bn"):
        super().__init__()
        self.conv1 = conv3x3(in_chans, width, stride)
        self.bn1 = make_norm(norm, width)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = make_norm(norm, width)
        self.downsample = make_shortcut(in_chans, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) -> (B, width, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)


class Bottleneck(nn.Module):
    """Narrow with 1x1, filter with 3x3, widen fourfold with 1x1.

    The 3x3 carries the stride, as in all common weights; the paper put it on the first 1x1, which
    throws three quarters of the map away unread.
    """

    expansion = 4

    def __init__(self, in_chans: int, width: int, stride: int = 1, norm: str = "bn"):
        super().__init__()
        out_chans = width * self.expansion
        self.conv1 = conv1x1(in_chans, width)
        self.bn1 = make_norm(norm, width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = make_norm(norm, width)
        self.conv3 = conv1x1(width, out_chans)
        self.bn3 = make_norm(norm, out_chans)
        self.relu = nn.ReLU()
        self.downsample = make_shortcut(in_chans, out_chans, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) -> (B, 4 * width, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)


class ResNet(nn.Module):
    """Stem, stages `layer1`, `layer2`, ... of residual blocks, mean over the map, linear classifier `fc`.

    Every stage after the first halves the map. The stem is 7x7 with stride 2 and a max-pool (for
    224 px), or one 3x3 that keeps the size when `small_stem` (for 28-64 px). With `num_classes=0`
    there is no classifier and the model returns the pooled features.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        num_classes: int = 1000,
        in_chans: int = 3,
        norm: str = "bn",
        small_stem: bool = False,
    ):
        super().__init__()
        if len(depths) != len(widths):
            raise SeminarError(f"depths and widths name the same stages, got {depths} and {widths}")
        chans = widths[0]
        if small_stem:
            self.conv1 = conv3x3(in_chans, chans)
        else:
            self.conv1 = nn.Conv2d(in_chans, chans, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, chans)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.num_stages = len(depths)
        for i, (depth, width) in enumerate(zip(depths, widths)):
            stage = []
            for j in range(depth):
                stage.append(block(chans, width, stride=2 if i > 0 and j == 0 else 1, norm=norm))
                chans = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.num_features = chans
        self.fc = nn.Linear(chans, num_classes) if num_classes else nn.Identity()
        self.apply(init_resnet)

    def forward_features(self, x: Tensor, stages: int | None = None) -> Tensor:
        """Images (B, C, H, W) -> the last map (B, num_features, h, w), or the one after the first `stages`."""
        check_images(x, self.conv1)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, widths[0], H/4, W/4), or H, W if small
        for i in range(self.num_stages if stages is None else stages):
            x = self.get_submodule(f"layer{i + 1}")(x)  # halved from the second stage on
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> one feature vector each (B, num_features), what `fc` reads."""
        return self.forward_features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, num_classes). Raises SeminarError if x does not fit."""
        return self.fc(self.embed(x))


def init_resnet(module: nn.Module) -> None:
    """He initialisation of the convolutions (arXiv 1502.01852); the other layers keep torch's."""
    if isinstance(module, nn.Conv2d):
        with torch.no_grad():
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18(**options) -> ResNet:
    """ResNet-18, 11.7 M parameters at 1000 classes. Options: see ResNet."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options) -> ResNet:
    """ResNet-34, 21.8 M parameters at 1000 classes. Options: see ResNet."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options) -> ResNet:
    """ResNet-50, 25.6 M parameters at 1000 classes. Options: see ResNet."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


def resnet_small(num_classes: int = 6, in_chans: int = 1, norm: str = "bn") -> ResNet:
    """The course's small ResNet for 28-64 px: 3 stages of 2 basic blocks, about 175,000 parameters."""
    return ResNet(BasicBlock, (2, 2, 2), (16, 32, 64), num_classes, in_chans, norm, small_stem=True)
