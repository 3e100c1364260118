"""The building blocks of the transformer family: one Attention, Mlp, Block and PatchEmbed for all.

Read from the bottom up: patches become tokens (PatchEmbed), a Block lets the tokens look at each other
(Attention) and then treats each token alone (Mlp). ViT, DINO, MAE, CLIP and SAM differ around these.
Vaswani et al., Attention Is All You Need, 2017 (arXiv 1706.03762);
Dosovitskiy et al., An Image is Worth 16x16 Words, 2020 (arXiv 2010.11929).
Parameter names are those of timm, DINO and MAE, so that their weights load without renaming.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v per head (arXiv 1706.03762, eq. 1).

    One linear layer makes q, k and v, in this order. Raises SeminarError if `num_heads` does not
    divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise SeminarError(f"the number of heads must divide the width, got dim={dim}, heads={num_heads}")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Mix the tokens x (B, N, D); returns (B, N, D), and the weights (B, heads, N, N) if asked.

        torch's fused kernel never holds the N x N weights; to look at them, the same sum is written out.
        """
        B, N, D = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, head_dim)
        if return_attention:
            attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)  # (B, heads, N, N)
            mixed = attention @ v  # (B, heads, N, head_dim)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, head_dim)
        out = self.proj(mixed.transpose(1, 2).reshape(B, N, D))  # (B, N, D)
        return (out, attention) if return_attention else out


class Mlp(nn.Module):
    """Two linear layers with an activation between them, applied to every token alone."""

    def __init__(self, dim: int, hidden_dim: int, activation: type[nn.Module] = nn.GELU):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = activation()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Widen, bend and narrow x (B, N, D) -> (B, N, D)."""
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """In training, drop a whole residual branch for a random share of the images (stochastic depth).

    The branches that stay are divided by the keep probability, so the expectation does not change.
    Huang et al., 2016 (arXiv 1603.09382). Raises SeminarError for a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise SeminarError(f"the drop-path rate lies in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop the branch x (B, ...) for some images; the identity in eval mode."""
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep)  # (B, 1, ...)
        return x * mask / keep


class LayerScale(nn.Module):
    """A learnt factor per channel on a residual branch; starts small (arXiv 2103.17239, used by DINOv2)."""

    def __init__(self, dim: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of x (B, N, D)."""
        return x * self.gamma


class Block(nn.Module):
    """A pre-norm transformer block (arXiv 2010.11929, eq. 2-3).

    x = x + Attention(norm1(x)), then x = x + Mlp(norm2(x)). With `layer_scale` each branch is scaled
    by a learnt factor per channel that starts at this value.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens x (B, N, D) -> (B, N, D), and the attention weights (B, heads, N, N) if asked."""
        attention = None
        mixed = self.attn(self.norm1(x), return_attention)
        if return_attention:
            mixed, attention = mixed
        x = x + self.drop_path(self.ls1(mixed))  # (B, N, D)
        x = x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))  # (B, N, D)
        return (x, attention) if return_attention else x


class PatchEmbed(nn.Module):
    """Cut the image into patches and map each one linearly to a token: a convolution with stride = size."""

    def __init__(self, patch_size: int, in_chans: int, dim: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, N, D), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, D, H/p, W/p) -> (B, N, D)


class ConvStem(nn.Module):
    """Patches by overlapping convolutions of stride 2, one for each halving (Xiao et al., arXiv 2106.14881).

    GroupNorm between them, so that a slow copy of the network needs no statistics of its own. `proj`, the first
    convolution, is what reads the image. Raises SeminarError for a patch that is no power of 2 from 2 on.
    """

    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        halvings = patch_size.bit_length() - 1
        if patch_size != 2**halvings or halvings < 1 or dim % 2**halvings:
            raise SeminarError(
                f"a convolutional stem halves the image: the patch is a power of 2 that divides the width, got "
                f"patch {patch_size} and width {dim}"
            )
        widths = [dim // 2 ** (halvings - i) for i in range(1, halvings + 1)]
        self.proj = nn.Conv2d(in_chans, widths[0], 3, stride=2, padding=1)
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:]):
            layers += [nn.GroupNorm(1, before), nn.GELU(), nn.Conv2d(before, after, 3, stride=2, padding=1)]
        self.rest = nn.Sequential(*layers, nn.GroupNorm(1, dim), nn.GELU(), nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, N, D), row by row."""
        return self.rest(self.proj(x)).flatten(2).transpose(1, 2)  # (B, D, H/p, W/p) -> (B, N, D)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of every pixel of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W) over C."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, H, W, C) and back


def check_images(x: Tensor, first: nn.Conv2d) -> None:
    """Raise SeminarError unless x (B, C, H, W) fits `first`, the convolution that will read it.

    Looks at type, shape, dtype and device only, never at the pixels: it runs on every forward.
    """
    wanted = f"images as a float tensor (B, {first.in_channels}, H, W) with values in [0, 1]"
    if not isinstance(x, Tensor):
        raise SeminarError(f"expected {wanted}, got {type(x).__name__}")
    if x.ndim != 4 or x.shape[1] != first.in_channels or 0 in x.shape:
        raise SeminarError(f"expected {wanted}, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise SeminarError(f"expected {wanted}, got {x.dtype}: convert with x.float() / 255")
    weight = first.weight
    if x.device != weight.device:
        raise SeminarError(f"the images are on {x.device}, the model is on {weight.device}: move one of them")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise SeminarError(f"the images are {x.dtype}, the model's weights {weight.dtype}: convert one of them")
