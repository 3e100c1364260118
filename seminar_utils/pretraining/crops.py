"""Random views of images, made for a whole batch at once on its device: resized crops, flips, jitter, blur.

DINO's multi-crop (Caron et al., 2021, arXiv 2104.14294, section 3.1) and MAE's random resized crop (He et al.,
2021, arXiv 2111.06377, appendix A.1). Every random number comes from a `torch.Generator` on the CPU, so a view
is the same on every device and a run that was killed goes on with the same views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..runtime import SeminarError

RATIO = (3 / 4, 4 / 3)  # width to height, before resizing to a square


def uniform(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """`count` numbers, uniform in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def happens(probability: float, count: int, generator: Generator) -> Tensor:
    """`count` booleans, each true with this probability."""
    return torch.rand(count, generator=generator) < probability


def random_boxes(
    count: int, height: int, width: int, scale: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor]:
    """Centres and sides (count, 2) of random boxes, as (x, y) in fractions of the image.

    The area is uniform in `scale` (of the image's area), the ratio of the sides log-uniform in 3/4..4/3; a
    side longer than the image is cut to it.
    """
    area = uniform(*scale, count, generator) * height * width  # in pixels
    ratio = uniform(math.log(RATIO[0]), math.log(RATIO[1]), count, generator).exp()
    sides = torch.stack([(area * ratio).sqrt() / width, (area / ratio).sqrt() / height], dim=1).clamp(max=1)
    corners = torch.rand(count, 2, generator=generator) * (1 - sides)
    return corners + sides / 2, sides


def cut(x: Tensor, centres: Tensor, sides: Tensor, flips: Tensor, size: int) -> Tensor:
    """Cut one box out of every image (B, C, H, W), mirror it where `flips`, resize to (B, C, size, size).

    Bilinear, without smoothing: for boxes not much larger than `size`, as here, where crops are no larger
    than the image.
    """
    theta = torch.zeros(len(x), 2, 3)  # maps the new picture's [-1, 1] onto the box
    theta[:, 0, 0] = torch.where(flips, -sides[:, 0], sides[:, 0])
    theta[:, 1, 1] = sides[:, 1]
    theta[:, :, 2] = 2 * centres - 1
    grid = F.affine_grid(theta.to(x), [*x.shape[:2], size, size], align_corners=False)  # (B, size, size, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_resized_crop(
    x: Tensor, size: int, scale: tuple[float, float], generator: Generator, flip: float = 0.5
) -> Tensor:
    """A random box of every image (B, C, H, W), perhaps mirrored, resized to (B, C, size, size).

    Raises SeminarError if x is no batch of float images, or smaller than the crop.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise SeminarError(f"crops are cut from float images (B, C, H, W), got {x.dtype} {tuple(x.shape)}")
    height, width = x.shape[-2:]
    if size > min(height, width):
        raise SeminarError(f"a crop of {size} x {size} is larger than the images, {height} x {width}")
    centres, sides = random_boxes(len(x), height, width, scale, generator)
    return cut(x, centres, sides, happens(flip, len(x), generator), size)


def jitter(x: Tensor, brightness: float, contrast: float, probability: float, generator: Generator) -> Tensor:
    """Change brightness, then contrast, of some of the images (B, C, H, W) in [0, 1], each by its own factor."""
    chosen = happens(probability, len(x), generator)
    factors = []
    for strength in (brightness, contrast):
        factor = uniform(1 - strength, 1 + strength, len(x), generator)
        factors.append(torch.where(chosen, factor, 1.0).to(x).view(-1, 1, 1, 1))
    x = (x * factors[0]).clamp(0, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (x - mean) * factors[1]).clamp(0, 1)


def blur(x: Tensor, sigma: tuple[float, float], probability: float, generator: Generator) -> Tensor:
    """Blur some of the images (B, C, H, W) by a Gaussian of random width (in pixels), each by its own."""
    B, C, H, W = x.shape
    chosen = happens(probability, B, generator)
    widths = torch.where(chosen, uniform(*sigma, B, generator), 1e-3)  # so narrow that nothing changes
    if not chosen.any():
        return x
    reach = math.ceil(3 * sigma[1])
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / widths[:, None]) ** 2)  # (B, k)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(x).repeat_interleave(C, dim=0)  # (B*C, k)
    x = F.pad(x, (reach,) * 4, mode="replicate").reshape(1, B * C, H + 2 * reach, W + 2 * reach)
    x = F.conv2d(x, kernel[:, None, None, :], groups=B * C)  # along the rows
    return F.conv2d(x, kernel[:, None, :, None], groups=B * C).reshape(B, C, H, W)  # along the columns


@dataclass(frozen=True)
class MultiCrop:
    """DINO's views: two global crops and `num_local` small local ones of every image (section 3.1).

    Sizes in pixels; the defaults suit the course's 32 px images, the paper has 224 and 96. `global_scale`,
    `local_scale`: ranges of the share of the image's area. `blur` holds the probabilities for the first global,
    the second global and the local crops, `sigma` the range of its width (0.1 to 2 pixels for crops of 224).
    No hue, saturation or solarisation: they make no sense for grey images, and in stained tissue colour is
    what the pathologist reads.
    """

    global_size: int = 32
    local_size: int = 16
    num_local: int = 6
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    jitter: float = 0.8
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigma: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self):
        for scale in (self.global_scale, self.local_scale):
            if not 0 < scale[0] <= scale[1] <= 1:
                raise SeminarError(f"a range of crop areas lies in (0, 1], low before high, got {scale}")
        sizes = min(self.global_size, self.local_size) >= 1 and self.num_local >= 0
        if not sizes or not 0 < self.sigma[0] <= self.sigma[1]:
            raise SeminarError(f"crops need sizes >= 1, num_local >= 0 and 0 < sigma low <= high, got {self}")

    def __call__(self, x: Tensor, generator: Generator) -> list[Tensor]:
        """Images (B, C, H, W) in [0, 1] -> [globals (2B, C, g, g), locals (num_local * B, C, l, l)].

        Crop after crop: first crop 0 of all images, then crop 1 of all images. Without local crops the list
        has one entry. Raises SeminarError if a crop is larger than the images.
        """
        big = [self.view(x, self.global_size, self.global_scale, self.blur[i], generator) for i in (0, 1)]
        small = [
            self.view(x, self.local_size, self.local_scale, self.blur[2], generator) for _ in range(self.num_local)
        ]
        return [torch.cat(views) for views in (big, small) if views]

    def view(self, x: Tensor, size: int, scale: tuple[float, float], blurs: float, generator: Generator) -> Tensor:
        """One random view (B, C, size, size) of every image; `blurs`: the probability of a blur."""
        x = random_resized_crop(x, size, scale, generator, self.flip)
        x = jitter(x, self.brightness, self.contrast, self.jitter, generator)
        return blur(x, self.sigma, blurs, generator)
