"""SAM's image encoder: a plain ViT whose tokens stay a map, most blocks of which attend inside windows.

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643, appendix A); the design is ViTDet's, Li et al., 2022
(arXiv 2203.16527), the relative positions are MViTv2's, Li et al., 2021 (arXiv 2112.01526, eq. 4).
Parameter names are those of the official files, without their prefix `image_encoder.`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .layers import Attention, ConvStem, LayerNorm2d, PatchEmbed, check_images
from .vit import init_vit, interpolate_positions
from .windows import window_partition, window_reverse


class MLPBlock(nn.Module):
    """Two linear layers with an activation between them, under the names SAM's files give them."""

    def __init__(self, dim: int, mlp_dim: int, activation: type[nn.Module] = nn.GELU):
        super().__init__()
        self.lin1 = nn.Linear(dim, mlp_dim)
        self.act = activation()
        self.lin2 = nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Widen, bend and narrow x (..., D) -> (..., D)."""
        return self.lin2(self.act(self.lin1(x)))


def relative_embeddings(rel_pos: Tensor, q_size: int, k_size: int) -> Tensor:
    """The embedding of every offset between a query and a key along one axis: (q_size, k_size, D).

    rel_pos: (L, D), from the most negative offset to the most positive one. A table of another length than
    2 * max(q_size, k_size) - 1 is stretched linearly; when there are fewer keys than queries, or the other way
    round, the places of the fewer are spread over those of the many.
    """
    length = 2 * max(q_size, k_size) - 1
    if len(rel_pos) != length:
        rel_pos = F.interpolate(rel_pos.T[None], size=length, mode="linear")[0].T  # (length, D)
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q_place = torch.arange(q_size, device=rel_pos.device)[:, None] * q_step  # (q_size, 1)
    k_place = torch.arange(k_size, device=rel_pos.device)[None, :] * k_step  # (1, k_size)
    index = (q_place - k_place + (k_size - 1) * k_step).long()  # (q_size, k_size), from 0 on
    return rel_pos[index]


def relative_bias(
    q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, q_size: tuple[int, int], k_size: tuple[int, int]
) -> Tensor:
    """What the relative positions add to the attention scores, (B, heads, h*w, H*W) (arXiv 2112.01526, eq. 4).

    Each query asks, by dot products, how much it cares for the offset in rows, and in columns, to each key; the
    two answers are added. Args: q: (B, heads, h*w, D), NOT scaled by 1/sqrt(D): that is what SAM was trained
    with; q_size, k_size: (rows, columns) of the maps that queries (h, w) and keys (H, W) come from.
    """
    rows = relative_embeddings(rel_pos_h, q_size[0], k_size[0])  # (h, H, D)
    columns = relative_embeddings(rel_pos_w, q_size[1], k_size[1])  # (w, W, D)
    q = q.unflatten(2, q_size)  # (B, heads, h, w, D)
    by_row = q @ rows.transpose(1, 2)  # (B, heads, h, w, H)
    by_column = (q.transpose(2, 3) @ columns.transpose(1, 2)).transpose(2, 3)  # (B, heads, h, w, W)
    return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)  # (B, heads, h*w, H*W)


class RelativeAttention(Attention):
    """Self-attention on a map, softmax(q k^T / sqrt(d) + bias) v, the bias from the relative positions.

    Always 4-D tensors in torch's fused kernel: with (B * heads, N, d) it is several times slower on a CPU. The
    form without a bias, which joins its two terms to q and k, needs 0.8 GB less at 1024 px, and more time.
    """

    def __init__(self, dim: int, num_heads: int, size: int, qkv_bias: bool = True):
        super().__init__(dim, num_heads, qkv_bias)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """A map x (B, H, W, D) -> the same shape, and the weights (B, heads, H*W, H*W) if asked."""
        B, H, W, D = x.shape
        qkv = self.qkv(x).reshape(B, H * W, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, H*W, head_dim)
        bias = relative_bias(q, self.rel_pos_h, self.rel_pos_w, (H, W), (H, W))  # (B, heads, H*W, H*W)
        if return_attention:
            attention = (q @ k.transpose(-2, -1) * self.scale + bias).softmax(dim=-1)
            mixed = attention @ v  # (B, heads, H*W, head_dim)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = self.proj(mixed.transpose(1, 2).reshape(B, H, W, D))
        return (out, attention) if return_attention else out


class WindowBlock(nn.Module):
    """A pre-norm block on a map, x + attention(norm1(x)), then x + mlp(norm2(x)); window 0 attends globally.

    The map is padded to whole windows AFTER norm1, with zeros that do attend: SAM masks nothing.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, window: int, size: int, eps: float):
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = RelativeAttention(dim, num_heads, window or size)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """A map x (B, H, W, D) -> the same shape."""
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        """Attention on the whole map (B, H, W, D), or inside each window of it."""
        if not self.window:
            return self.attn(x)
        _, H, W, _ = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -W % side, 0, -H % side))  # (B, H', W', D), right and bottom
        windows = window_partition(x, side).unflatten(1, (side, side))  # (B * num_windows, side, side, D)
        return window_reverse(self.attn(windows), side, *x.shape[1:3])[:, :H, :W]


def make_neck(dim: int, out_chans: int) -> nn.Sequential:
    """From the encoder's width to the decoder's: two convolutions, each with LayerNorm over the channels."""
    return nn.Sequential(
        nn.Conv2d(dim, out_chans, kernel_size=1, bias=False),
        LayerNorm2d(out_chans, eps=1e-6),
        nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_chans, eps=1e-6),
    )


class ImageEncoderViT(nn.Module):
    """Patches, positions, blocks on a map, neck; no norm stands between the last block and the neck.

    `global_attn_indexes` names the blocks that see the whole map. Other image sizes than `img_size` are read by
    stretching the positions bicubically and the global blocks' relative positions linearly. `conv_stem` cuts the
    patches by overlapping convolutions, which learn sooner on little data (not SAM's).
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        window: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        conv_stem: bool = False,
        eps: float = 1e-6,
    ):
        super().__init__()
        if img_size % patch_size or not set(global_attn_indexes) <= set(range(depth)):
            raise SeminarError(
                f"the patch divides the image, global blocks are among 0..{depth - 1}: got patch {patch_size}, "
                f"image {img_size}, global blocks {tuple(global_attn_indexes)}"
            )
        size = img_size // patch_size
        self.stride, self.in_chans, self.out_chans = patch_size, in_chans, out_chans
        self.patch_embed = (ConvStem if conv_stem else PatchEmbed)(patch_size, in_chans, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, size, size, dim))
        self.blocks = nn.ModuleList(
            WindowBlock(dim, num_heads, mlp_ratio, 0 if i in global_attn_indexes else window, size, eps)
            for i in range(depth)
        )
        self.neck = make_neck(dim, out_chans)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_vit)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embeddings (1, H, W, D) for a grid of patches, stretched if it is not the learnt one."""
        learnt = tuple(self.pos_embed.shape[1:3])
        flat = interpolate_positions(self.pos_embed.flatten(1, 2), grid, "mae", learnt, prefix_tokens=0)
        return flat.unflatten(1, grid)

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> patches with positions, a map (B, H/p, W/p, D)."""
        check_images(x, self.patch_embed.proj)
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            came = " x ".join(map(str, x.shape[-2:]))
            raise SeminarError(f"both sides of an image must be multiples of the patch, {self.stride}: got {came}")
        grid = (x.shape[-2] // self.stride, x.shape[-1] // self.stride)
        return self.patch_embed(x).unflatten(1, grid) + self.positions(grid)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, sides multiples of the patch -> embeddings (B, out_chans, H/p, W/p).

        Raises SeminarError if x does not fit.
        """
        x = self.tokens(x)  # (B, H/p, W/p, D)
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))  # (B, D, H/p, W/p) -> (B, out_chans, H/p, W/p)
