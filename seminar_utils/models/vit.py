"""Vision Transformer: an image as a sequence of patches, read by a plain transformer.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020 (arXiv 2010.11929, eq. 1-4).
Parameter names are those of timm, DINO and MAE; `convert.py` renames torchvision's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .layers import Block, ConvStem, PatchEmbed, check_images

CONVENTIONS = ("dino", "mae", "timm", "torchvision")
POOLS = ("token", "avg")


def interpolate_positions(
    pos: Tensor,
    grid: tuple[int, int],
    convention: str,
    old_grid: tuple[int, int] | None = None,
    prefix_tokens: int = 1,
) -> Tensor:
    """Stretch position embeddings to another grid of patches, bicubically.

    The reference packages stretch in incompatible ways, so the choice is never made for you: "dino" scales
    by (n + 0.1) / N per side, and the 0.1 enters the sampling positions; "mae" gives the new size; "timm"
    (also open_clip) gives it and smooths when shrinking; "torchvision" aligns the corners.

    Args: pos: (1, prefix + H*W, D), the prefix (class token) is kept as it is; grid: new (H', W');
    old_grid: (H, W), square if not given. Returns (1, prefix + H'*W', D).
    Raises SeminarError for an unknown convention or a sequence that does not fill the old grid.
    """
    if convention not in CONVENTIONS:
        raise unknown_name("position convention", convention, CONVENTIONS)
    num_patches = pos.shape[1] - prefix_tokens
    old_grid = old_grid or (round(num_patches**0.5),) * 2
    if old_grid[0] * old_grid[1] != num_patches:
        raise SeminarError(f"{num_patches} patch positions do not fill a grid of {old_grid}: give old_grid")
    if tuple(grid) == tuple(old_grid):
        return pos
    prefix, patches = pos[:, :prefix_tokens], pos[:, prefix_tokens:]  # (1, prefix, D), (1, H*W, D)
    patches = patches.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)  # (1, D, H, W)
    patches = patches.to(torch.promote_types(pos.dtype, torch.float32))  # half precision is too coarse here
    if convention == "dino":
        scale = tuple((new + 0.1) / old for new, old in zip(grid, old_grid))
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    elif convention == "mae":
        patches = F.interpolate(patches, size=tuple(grid), mode="bicubic")
    elif convention == "timm":
        patches = F.interpolate(patches, size=tuple(grid), mode="bicubic", antialias=True)
    else:
        patches = F.interpolate(patches, size=tuple(grid), mode="bicubic", align_corners=True)
    patches = patches.to(pos.dtype).flatten(2).transpose(1, 2)  # (1, D, H', W') -> (1, H'*W', D)
    return torch.cat([prefix, patches], dim=1)


def sincos_positions(dim: int, grid: int, cls_token: bool = True) -> Tensor:
    """Fixed positions of a square grid (1, [1 +] grid * grid, dim), in float64; the class token's are zero.

    Half of the channels says the column, the other half the row (in this order), each as sines, then cosines
    of i / 10000^(j / (dim/4)). Raises SeminarError unless 4 divides dim.
    """
    if dim % 4:
        raise SeminarError(f"sine-cosine positions need a width that 4 divides, got {dim}")
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))  # (dim/4,)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, dim/4)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, dim/2)
    columns = line[None, :, :].expand(grid, grid, -1)  # changes along x
    rows = line[:, None, :].expand(grid, grid, -1)  # changes along y
    pos = torch.cat([columns, rows], dim=2).reshape(grid * grid, dim)
    return (torch.cat([torch.zeros(1, dim, dtype=pos.dtype), pos]) if cls_token else pos)[None]


class VisionTransformer(nn.Module):
    """Patches to tokens, a class token in front, positions added, blocks, LayerNorm, linear `head`.

    `img_size` fixes how many positions are learnt. Images of another size need `interpolation`, one of
    "dino", "mae", "timm" or "torchvision" (see `interpolate_positions`); without it they are refused.
    With `num_classes=0` there is no head and the model returns the class token. `global_pool="avg"`, MAE's
    way to fine-tune, lets the head read the mean of the patch tokens, normalised after the mean by `fc_norm`
    instead of before it by `norm` (arXiv 2111.06377, appendix A.1). `conv_stem` cuts the patches by overlapping
    convolutions, which learn sooner on little data.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        interpolation: str | None = None,
        global_pool: str = "token",
        conv_stem: bool = False,
    ):
        super().__init__()
        if global_pool not in POOLS:
            raise unknown_name("way to pool", global_pool, POOLS)
        if interpolation is not None and interpolation not in CONVENTIONS:
            raise unknown_name("position convention", interpolation, CONVENTIONS)
        self.patch_size, self.interpolation, self.num_features = patch_size, interpolation, dim
        self.global_pool = global_pool
        self.grid = self.grid_of(*((img_size, img_size) if isinstance(img_size, int) else img_size))
        self.patch_embed = (ConvStem if conv_stem else PatchEmbed)(patch_size, in_chans, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dim))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]  # deeper blocks drop more often
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, qkv_bias, rate, layer_scale) for rate in rates
        )
        pools_mean = global_pool == "avg"
        self.norm = nn.Identity() if pools_mean else nn.LayerNorm(dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6) if pools_mean else nn.Identity()
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_vit)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image; SeminarError if the patch does not divide its sides."""
        p = self.patch_size
        if height < p or width < p or height % p or width % p:
            raise SeminarError(
                f"both sides of an image must be multiples of the patch, {p}: got {height} x {width}"
            )
        return height // p, width // p

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> class and patch tokens with positions (B, 1 + N, D) (eq. 1)."""
        check_images(x, self.patch_embed.proj)
        pos = self.positions(self.grid_of(*x.shape[-2:]))  # (1, 1 + N, D)
        patches = self.patch_embed(x)  # (B, N, D)
        cls = self.cls_token.expand(len(x), -1, -1)  # (B, 1, D)
        return torch.cat([cls, patches], dim=1) + pos  # (B, 1 + N, D)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embeddings (1, 1 + H*W, D) for a grid, stretched if it is not the learnt one."""
        if grid == self.grid:
            return self.pos_embed
        if self.interpolation is None:
            h, w = (side * self.patch_size for side in self.grid)
            came = " x ".join(str(side * self.patch_size) for side in grid)
            raise SeminarError(
                f"this model learnt positions for {h} x {w} images, got {came}: resize the images, "
                f"or choose interpolation= one of {CONVENTIONS}"
            )
        return interpolate_positions(self.pos_embed, grid, self.interpolation, self.grid)

    def forward_features(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W) -> normalised tokens (B, 1 + N, D), the class token first.

        Not yet normalised with `global_pool="avg"`, where that comes after the mean (see `pool`).
        With `return_attention` also the weights of every block, a list of (B, heads, 1 + N, 1 + N).
        """
        x = self.tokens(x)  # (B, 1 + N, D)
        attentions = []
        for block in self.blocks:
            x = block(x, return_attention)
            if return_attention:
                x, attention = x
                attentions.append(attention)
        x = self.norm(x)
        return (x, attentions) if return_attention else x

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> one feature vector each (B, D), what `head` reads."""
        return self.pool(self.forward_features(x))

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + N, D) -> (B, D): the class token, or the normalised mean of the patches."""
        return self.fc_norm(tokens[:, 1:].mean(dim=1)) if self.global_pool == "avg" else tokens[:, 0]

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W) -> logits (B, num_classes), and every block's attention weights if asked.

        Raises SeminarError if x does not fit.
        """
        if not return_attention:
            return self.head(self.embed(x))
        tokens, attentions = self.forward_features(x, return_attention=True)
        return self.head(self.pool(tokens)), attentions


def init_vit(module: nn.Module) -> None:
    """Small normal weights and zero biases for the linear layers, as all of the family does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vit_b_16(**options) -> VisionTransformer:
    """ViT-B/16 at 224 px, 86.6 M parameters at 1000 classes. Options: see VisionTransformer."""
    return VisionTransformer(**{"dim": 768, "depth": 12, "num_heads": 12, **options})


def vit_small_16(**options) -> VisionTransformer:
    """ViT-S/16 at 224 px, 22.1 M parameters at 1000 classes. Options: see VisionTransformer."""
    return VisionTransformer(**{"dim": 384, "depth": 12, "num_heads": 6, **options})


def vit_small_14(**options) -> VisionTransformer:
    """DINOv2's ViT-S/14: LayerScale, 37 x 37 positions (518 px), no head (Oquab et al., arXiv 2304.07193)."""
    shape = {"img_size": 518, "patch_size": 14, "num_classes": 0, "layer_scale": 1.0, "interpolation": "dino"}
    return vit_small_16(**{**shape, **options})


def vit_tiny(
    num_classes: int = 6, in_chans: int = 1, img_size: int = 32, patch_size: int = 4, **options
) -> VisionTransformer:
    """The course's small ViT (width 96, 4 blocks, 3 heads), about 0.45 M parameters. Options: as above."""
    size = {"dim": 96, "depth": 4, "num_heads": 3, **options}
    return VisionTransformer(img_size, patch_size, in_chans, num_classes, **size)
