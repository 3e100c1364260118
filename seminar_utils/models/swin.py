"""Swin Transformer: attention inside small windows, which shift from block to block.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021 (arXiv 2103.14030).
A map of tokens (B, H, W, D) is cut into windows, each window attends to itself, and between the stages
four neighbours become one token of twice the width. Parameter names are those of Microsoft's files;
`convert.py` renames torchvision's and timm's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .layers import DropPath, Mlp, check_images
from .vit import init_vit
from .windows import cached_shift_mask, relative_positions, window_partition, window_reverse


class WindowAttention(nn.Module):
    """Attention in each window, softmax(q k^T / sqrt(d) + B) v (eq. 4).

    B is a learnt number for every relative position of two tokens, for each head.
    """

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise SeminarError(f"the number of heads must divide the width, got dim={dim}, heads={num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self) -> Tensor:
        """B of eq. 4: (heads, N, N) with N = window^2."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Windows x (B * num_windows, N, D) -> the same shape, and the weights (B * num_windows, heads, N, N).

        mask (num_windows, N, N) is added to the scores. A window is small, so the weights are written out.
        """
        M, N, D = x.shape
        qkv = self.qkv(x).reshape(M, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (M, heads, N, head_dim)
        scores = q * (D // self.num_heads) ** -0.5 @ k.transpose(-2, -1) + self.bias()  # (M, heads, N, N)
        if mask is not None:
            scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]  # (B, num_windows, heads, N, N)
            scores = scores.flatten(0, 1)  # (M, heads, N, N)
        attention = scores.softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(M, N, D)  # (M, heads, N, head_dim) before
        return self.proj(mixed), attention


class SwinBlock(nn.Module):
    """(Shifted) window attention, then an MLP, each with LayerNorm before and a residual (eq. 3).

    Along a side that one window covers there is no shift. A map smaller than its window is padded to it,
    as in torchvision: the table keeps its size (Microsoft and timm shrink the window and its table instead).
    Padding comes before rolling, as in torchvision; timm rolls first, so on padded maps it computes otherwise.
    """

    def __init__(
        self, dim: int, num_heads: int, window: int, shift: int, mlp_ratio: float, drop_path: float, eps: float
    ):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = WindowAttention(dim, num_heads, window)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map x (B, H, W, D) -> the same shape, and the weights (B * num_windows, heads, N, N)."""
        mixed, attention = self.attend(self.norm1(x))
        x = x + self.drop_path(mixed)  # (B, H, W, D)
        return x + self.drop_path(self.mlp(self.norm2(x))), attention

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pad, roll, cut into windows, attend, and all of it back; the zeros of the padding do attend."""
        _, H, W, _ = x.shape
        x = F.pad(x, (0, 0, 0, -W % self.window, 0, -H % self.window))  # (B, H', W', D), right and bottom
        height, width = x.shape[1:3]
        shift = tuple(self.shift if side > self.window else 0 for side in (height, width))
        mask = None
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
            mask = cached_shift_mask(height, width, self.window, shift, x.device, x.dtype)
        windows, attention = self.attn(window_partition(x, self.window), mask)  # (B * num_windows, N, D)
        x = window_reverse(windows, self.window, height, width)  # (B, H', W', D)
        return torch.roll(x, shift, dims=(1, 2))[:, :H, :W], attention


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width (section 3.1); odd maps are padded with zeros."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) -> (B, H/2, W/2, 2D); the order of the four is [0,0], [1,0], [0,1], [1,1]."""
        _, H, W, _ = x.shape
        x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))  # (B, H/2, W/2, 4D) before


class Stage(nn.Module):
    """Blocks at one resolution, every second one shifted by half a window, then a merge (or none)."""

    def __init__(self, dim: int, num_heads: int, window: int, rates: Sequence[float], last: bool, **options):
        super().__init__()
        shifts = [0 if number % 2 == 0 else window // 2 for number in range(len(rates))]
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window, shift, drop_path=rate, **options)
            for shift, rate in zip(shifts, rates)
        )
        self.downsample = nn.Identity() if last else PatchMerging(dim, options["eps"])


class PatchMap(nn.Module):
    """Patches to tokens by a convolution with stride = size, then LayerNorm; the tokens stay a map."""

    def __init__(self, patch_size: int, in_chans: int, dim: int, eps: float):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, H/p, W/p, D); zeros at the right and the bottom complete the patches."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))  # (B, D, H/p, W/p) before


class SwinTransformer(nn.Module):
    """Four stages of windowed attention, LayerNorm, mean over the map, linear `head` (figure 3).

    Images of any size are read, padded where needed. With `num_classes=0` there is no head and the model
    returns the features.
    """

    def __init__(
        self,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        eps: float = 1e-5,
    ):
        super().__init__()
        if len(depths) != len(num_heads) or not depths or min(*depths, window, patch_size, 1) < 1:
            raise SeminarError(
                f"depths and num_heads must name the same stages, window and patch be at least 1, got "
                f"{tuple(depths)}, {tuple(num_heads)}, {window}, {patch_size}"
            )
        self.num_features, stages = dim * 2 ** (len(depths) - 1), range(len(depths))
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        options = {"mlp_ratio": mlp_ratio, "eps": eps}
        self.patch_embed = PatchMap(patch_size, in_chans, dim, eps)
        self.layers = nn.ModuleList(
            Stage(dim * 2**i, num_heads[i], window, rates[i].tolist(), last=i == stages[-1], **options)
            for i in stages
        )
        self.norm = nn.LayerNorm(self.num_features, eps=eps)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.apply(init_vit)

    def forward_features(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W) -> the normalised last map (B, h, w, D).

        With `return_attention` also every block's weights, a list of (B * num_windows, heads, N, N).
        """
        check_images(x, self.patch_embed.proj)
        x, attentions = self.patch_embed(x), []  # (B, H/p, W/p, D)
        for stage in self.layers:
            for block in stage.blocks:
                x, attention = block(x)
                attentions += [attention] if return_attention else []
            x = stage.downsample(x)  # half the sides, twice the width
        x = self.norm(x)
        return (x, attentions) if return_attention else x

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> one feature vector each (B, D): the mean over the map, what `head` reads."""
        return self.forward_features(x).mean(dim=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, num_classes). Raises SeminarError if x does not fit."""
        return self.head(self.embed(x))


def swin_t(**options) -> SwinTransformer:
    """Swin-T: 28.3 M parameters at 1000 classes. Options: see SwinTransformer."""
    return SwinTransformer(**options)


def swin_s(**options) -> SwinTransformer:
    """Swin-S: 49.6 M parameters at 1000 classes. Options: see SwinTransformer."""
    return SwinTransformer(**{"depths": (2, 2, 18, 2), **options})


def swin_b(**options) -> SwinTransformer:
    """Swin-B: 87.8 M parameters at 1000 classes. Options: see SwinTransformer."""
    return SwinTransformer(**{"dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), **options})


def swin_tiny(num_classes: int = 6, in_chans: int = 1, **options) -> SwinTransformer:
    """The course's small Swin for images of 32 or 64 pixels: three stages, 0.56 M parameters."""
    size = {"dim": 32, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "window": 4, "patch_size": 2, **options}
    return SwinTransformer(in_chans=in_chans, num_classes=num_classes, **size)
