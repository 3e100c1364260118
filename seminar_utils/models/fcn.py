"""FCN: a classifier made to answer at every pixel. Long, Shelhamer, Darrell, CVPR 2015 (arXiv 1411.4038).

A ResNet's maps of all stages, brought back to the size of the image and read by one 1x1 convolution. The paper
scores each stage by a 1x1 convolution and adds what it says (figure 3); interpolation and 1x1 convolutions are
linear and may change places, so that one convolution over the maps side by side is the same sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import check_images
from .resnet import BasicBlock, ResNet


class FCN(nn.Module):
    """`backbone`, a ResNet without a classifier, and `classifier`, a 1x1 convolution over all its stages.

    With `num_classes=1` the one logit says "inside"; its sigmoid is the probability of the pixel.
    """

    def __init__(self, backbone: ResNet, widths: tuple[int, ...], num_classes: int = 1):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(sum(widths), num_classes, kernel_size=1)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Images (B, C, H, W) -> the map after each stage, (B, width, H, W), (B, width, H/2, W/2), ..."""
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))  # (B, widths[0], H, W)
        for i in range(net.num_stages):
            x = net.get_submodule(f"layer{i + 1}")(x)  # halved from the second stage on
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits of every pixel (B, num_classes, H, W). SeminarError if x does not fit."""
        check_images(x, self.backbone.conv1)
        size = x.shape[-2:]
        grown = [F.interpolate(one, size, mode="bilinear") for one in self.maps(x)]  # each (B, width, H, W)
        return self.classifier(torch.cat(grown, dim=1))  # (B, num_classes, H, W)


def fcn_small(num_classes: int = 1, in_chans: int = 1, norm: str = "bn") -> FCN:
    """The course's segmentation network for 64 px: the small ResNet with one block a stage, 77,000 parameters.

    Not narrower: torch 2.13 on a CPU corrupts memory in the backward pass of a channels-last 1x1 convolution with
    stride 2 over 8 channels (over 12, 16 and 32 it does not).
    """
    widths = (16, 32, 64)
    return FCN(ResNet(BasicBlock, (1, 1, 1), widths, 0, in_chans, norm, small_stem=True), widths, num_classes)
