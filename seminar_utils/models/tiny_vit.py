"""TinyViT as LiteMedSAM uses it: convolutions at full resolution, then attention in windows on a smaller map.

Wu et al., TinyViT, 2022 (arXiv 2207.10666); the variant is MobileSAM's (Zhang et al., 2023, arXiv 2306.14289) as
changed by LiteMedSAM's authors: the stem does not shrink the image, so that 256 px give the decoder the same 64 x
64 map that SAM makes of 1024 px. Parameter names are those of LiteMedSAM's file, without its prefix
`image_encoder.`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .layers import DropPath, check_images
from .sam_encoder import make_neck
from .vit import init_vit
from .windows import window_partition, window_reverse


class ConvBN(nn.Module):
    """A convolution without bias, then BatchNorm.

    In eval mode both are one convolution: the statistics are constants then, and one pass over a large map is
    saved.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        padding = kernel // 2
        self.c = nn.Conv2d(in_chans, out_chans, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        if self.training:
            return self.bn(self.c(x))
        factor = self.bn.weight * (self.bn.running_var + self.bn.eps).rsqrt()  # (C',)
        bias = self.bn.bias - self.bn.running_mean * factor
        weight = self.c.weight * factor.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, bias, self.c.stride, self.c.padding, groups=self.c.groups)


class MBConv(nn.Module):
    """Widen by a 1x1 convolution, look around in each channel, narrow; GELU after the residual."""

    def __init__(self, dim: int, expand: float, drop_path: float):
        super().__init__()
        hidden = int(dim * expand)
        self.conv1 = ConvBN(dim, hidden)
        self.conv2 = ConvBN(hidden, hidden, kernel=3, groups=hidden)
        self.conv3 = ConvBN(hidden, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y = F.gelu(self.conv1(x))  # (B, hidden, H, W)
        y = self.conv3(F.gelu(self.conv2(y)))  # (B, C, H, W)
        return F.gelu(x + self.drop_path(y))


class PatchMerging(nn.Module):
    """To the next stage's width, with a stride of 2 (sides halved) or 1."""

    def __init__(self, dim: int, out_dim: int, stride: int):
        super().__init__()
        self.conv1 = ConvBN(dim, out_dim)
        self.conv2 = ConvBN(out_dim, out_dim, kernel=3, stride=stride, groups=out_dim)
        self.conv3 = ConvBN(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class NormMlp(nn.Module):
    """LayerNorm, then two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class BiasedAttention(nn.Module):
    """LayerNorm, then attention in a window with a learnt number per head and distance (LeViT, arXiv 2104.01136).

    Distances are absolute, (|rows|, |columns|), so left and right count the same. `qkv` is packed head by head:
    q, k and v of the first head, then those of the second. The bias is looked up afresh on every call, so weights
    that are loaded after `eval()` count.
    """

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise SeminarError(f"the number of heads must divide the width, got dim={dim}, heads={num_heads}")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window**2))
        self.register_buffer("attention_bias_idxs", absolute_distances(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Windows x (M, N, D) -> the same shape."""
        qkv = self.qkv(self.norm(x)).unflatten(2, (self.num_heads, 3, -1))  # (M, N, heads, 3, head_dim)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each (M, heads, N, head_dim)
        bias = self.attention_biases[:, self.attention_bias_idxs]  # (heads, N, N)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (M, N, heads, head_dim) before


def absolute_distances(window: int) -> Tensor:
    """Which bias two tokens of a window share: |rows| * window + |columns|, integers (window^2, window^2)."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window)).reshape(-1, 2)  # (window^2, 2)
    apart = (places[:, None] - places[None, :]).abs()  # (window^2, window^2, 2)
    return apart[..., 0] * window + apart[..., 1]


class TinyViTBlock(nn.Module):
    """Attention in windows, a 3x3 convolution per channel that lets neighbouring windows touch, an MLP."""

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.window = window
        self.attn = BiasedAttention(dim, num_heads, window)
        self.mlp = NormMlp(dim, int(dim * mlp_ratio))
        self.local_conv = ConvBN(dim, dim, kernel=3, groups=dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """A map x (B, C, H, W) -> the same shape."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = x + self.drop_path(self.attend(x))
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, C, H, W) and back
        return (x + self.drop_path(self.mlp(x))).permute(0, 3, 1, 2)  # (B, C, H, W)

    def attend(self, x: Tensor) -> Tensor:
        """Attention inside each window of a map (B, H, W, C), padded with zeros that do attend."""
        _, H, W, _ = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -W % side, 0, -H % side))  # (B, H', W', C), right and bottom
        return window_reverse(self.attn(window_partition(x, side)), side, *x.shape[1:3])[:, :H, :W]


class Stage(nn.Module):
    """Blocks at one resolution, then a merge (or none, after the last stage)."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class TinyViT(nn.Module):
    """Two 1x1 convolutions, a stage of MBConv, three of windowed attention, SAM's neck.

    The map is halved after the first and the second stage, so its sides are a quarter of the image's.
    """

    stride = 4

    def __init__(
        self,
        in_chans: int = 3,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if not len(dims) == len(depths) == len(num_heads) == len(windows) == 4:
            raise SeminarError("dims, depths, num_heads and windows name the same four stages")
        self.in_chans, self.out_chans = in_chans, out_chans
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        stem = nn.Sequential(ConvBN(in_chans, dims[0] // 2), nn.GELU(), ConvBN(dims[0] // 2, dims[0]))
        self.patch_embed = nn.ModuleDict({"seq": stem})
        blocks = [[MBConv(dims[0], 4.0, rate) for rate in rates[0].tolist()]]
        for i in (1, 2, 3):
            options = (dims[i], num_heads[i], windows[i], mlp_ratio)
            blocks.append([TinyViTBlock(*options, drop_path=rate) for rate in rates[i].tolist()])
        merges = [PatchMerging(dims[i], dims[i + 1], stride) for i, stride in enumerate((2, 2, 1))]
        self.layers = nn.ModuleList(Stage(*parts) for parts in zip(blocks, [*merges, None]))
        self.neck = make_neck(dims[-1], out_chans)
        self.apply(init_vit)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1], sides multiples of 4 -> embeddings (B, out_chans, H/4, W/4).

        Raises SeminarError if x does not fit.
        """
        stem = self.patch_embed["seq"]
        check_images(x, stem[0].c)
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise SeminarError(f"both sides of an image must be multiples of 4, got {x.shape[-2]} x {x.shape[-1]}")
        x = stem(x)  # (B, dims[0], H, W)
        for stage in self.layers:
            x = stage(x)  # at the end (B, dims[3], H/4, W/4)
        return self.neck(x)
