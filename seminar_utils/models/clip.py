"""CLIP: an image tower and a text tower, trained so that an image and its caption point the same way.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021 (arXiv 2103.00020).
Both towers are pre-norm transformers; the text tower may look back only. Parameter names are those of OpenAI's
and open_clip's files (`checkpoints.clip_files` reads them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .clip_blocks import Transformer
from .layers import check_images
from .vit import CONVENTIONS, interpolate_positions


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the two towers. The files do not tell the activation: OpenAI's were trained with QuickGELU.

    conv_stem: widths of 3x3 convolutions of stride 2 before the patches are cut (the small CLIP has some);
    stem_extra: convolutions that follow each but the first of them at its resolution, for finer shapes.
    pool: what the image tower reads out, "class" (the class token) or the side of a grid of means.
    interpolation: how to stretch positions to other image sizes, see `vit.interpolate_positions`.
    """

    embed_dim: int = 512
    image_size: int = 224
    patch_size: int = 32
    in_chans: int = 3
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    context_length: int = 77
    vocab_size: int = 49408
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    quick_gelu: bool = True
    conv_stem: tuple[int, ...] = ()
    stem_extra: int = 0
    pool: str | int = "class"
    interpolation: str | None = None

    def __post_init__(self):
        if self.pool != "class" and (not isinstance(self.pool, int) or self.pool < 1):
            raise SeminarError(f'pool is "class" or the side of a grid, at least 1, got {self.pool!r}')
        if self.interpolation is not None and self.interpolation not in CONVENTIONS:
            raise unknown_name("position convention", self.interpolation, CONVENTIONS)
        if any(width < 8 or width % 8 for width in self.conv_stem):
            raise SeminarError(f"the widths of the stem are multiples of 8, got {tuple(self.conv_stem)}")
        if not isinstance(self.stem_extra, int) or self.stem_extra < 0:
            raise SeminarError(f"stem_extra counts convolutions, from 0 on, got {self.stem_extra!r}")


class ImageTower(nn.Module):
    """A ViT with a LayerNorm before the first block, and a projection into the shared space (section 2.4).

    The patch convolution has no bias. With a convolutional stem, early layers see edges before the
    patches are cut, which small images need.
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        width, stem = config.vision_width, (config.in_chans, *config.conv_stem)
        self.pool, self.interpolation = config.pool, config.interpolation
        self.stride = config.patch_size * 2 ** len(config.conv_stem)  # pixels from one token to the next
        self.stem = nn.Sequential()
        for i, pair in enumerate(zip(stem, stem[1:])):
            self.stem.append(conv_norm_gelu(*pair, stride=2))
            self.stem.extend(conv_norm_gelu(pair[1], pair[1]) for _ in range(config.stem_extra if i else 0))
        self.conv1 = nn.Conv2d(stem[-1], width, config.patch_size, stride=config.patch_size, bias=False)
        self.grid = self.grid_of(config.image_size, config.image_size)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + self.grid[0] * self.grid[1], width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, config.vision_heads, config.quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        read = 1 if config.pool == "class" else int(config.pool) ** 2
        self.proj = nn.Parameter((read * width) ** -0.5 * torch.randn(read * width, config.embed_dim))

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens; SeminarError if they do not divide the image's sides."""
        if height < self.stride or width < self.stride or height % self.stride or width % self.stride:
            raise SeminarError(
                f"both sides of an image must be multiples of {self.stride} for this CLIP, got {height} x {width}"
            )
        return height // self.stride, width // self.stride

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embeddings (1 + H*W, D) for a grid, stretched if it is not the learnt one."""
        if grid == self.grid:
            return self.positional_embedding
        if self.interpolation is None:
            h, w, height, width = (side * self.stride for side in (*self.grid, *grid))
            raise SeminarError(
                f"this CLIP learnt positions for {h} x {w} images, got {height} x {width}: resize, or choose "
                "interpolation="
            )
        return interpolate_positions(self.positional_embedding[None], grid, self.interpolation, self.grid)[0]

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features (B, embed_dim), not normalised."""
        check_images(x, self.stem[0][0] if len(self.stem) else self.conv1)
        grid = self.grid_of(*x.shape[-2:])
        x = self.conv1(self.stem(x)).flatten(2).transpose(1, 2)  # (B, N, D)
        cls = self.class_embedding.expand(len(x), 1, -1)  # (B, 1, D)
        x = torch.cat([cls, x], dim=1) + self.positions(grid)  # (B, 1 + N, D)
        x = self.transformer(self.ln_pre(x))
        if self.pool == "class":
            return self.ln_post(x[:, 0]) @ self.proj  # (B, embed_dim)
        maps = self.ln_post(x[:, 1:]).transpose(1, 2).unflatten(2, grid)  # (B, D, H, W)
        return F.adaptive_avg_pool2d(maps, self.pool).flatten(1) @ self.proj


def conv_norm_gelu(in_chans: int, width: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, normalised in groups so that images do not mix."""
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(8, width), nn.GELU()
    )


def check_ids(ids: Tensor, config: ClipConfig) -> None:
    """Raise SeminarError unless the ids (B, L) are integers that fit the context and the vocabulary."""
    length, words = config.context_length, config.vocab_size
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int64, torch.int32):
        came = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise SeminarError(f"expected token ids as an integer tensor (B, L), as tokenizers give, got {came}")
    if 0 in ids.shape or ids.shape[1] > length:
        raise SeminarError(f"captions have 1 to {length} tokens in this CLIP, got shape {tuple(ids.shape)}")
    if ids.min() < 0 or ids.max() >= words:
        raise SeminarError(f"ids lie in 0..{words - 1}, got {ids.min()}..{ids.max()}: from another tokenizer?")


class CLIP(nn.Module):
    """The two towers and the learnt temperature, logits = exp(logit_scale) * cos(image, text) (figure 3)."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config, self.num_features = config, config.embed_dim
        self.visual = ImageTower(config)
        self.transformer = Transformer(config.text_width, config.text_layers, config.text_heads, config.quick_gelu)
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length, config.text_width))
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(
            config.text_width**-0.5 * torch.randn(config.text_width, config.embed_dim)
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Images (B, C, H, W) -> features (B, embed_dim), of length 1 if asked."""
        features = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, ids: Tensor, normalize: bool = False) -> Tensor:
        """Token ids (B, L) -> features (B, embed_dim), read at the end token, the largest id (section 2.4).

        Raises SeminarError for captions longer than the context or ids that are not in the vocabulary.
        """
        features = self.encode_tokens(*self.embed_tokens(ids))
        return F.normalize(features, dim=-1) if normalize else features

    def embed_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) -> word vectors (B, L, D) and the place of each end token (B,), the largest id."""
        check_ids(ids, self.config)
        return self.token_embedding(ids), ids.argmax(dim=1)

    def encode_tokens(self, tokens: Tensor, end: Tensor) -> Tensor:
        """Token vectors (B, L, D) -> features (B, embed_dim) read at the positions `end` (B,).

        Learnt prompts (CoOp, TPT) come in here, as vectors that belong to no word.
        """
        x = tokens + self.positional_embedding[: tokens.shape[1]]  # (B, L, D)
        x = self.ln_final(self.transformer(x, causal=True))
        return x[torch.arange(len(x), device=x.device), end] @ self.text_projection

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> one feature vector each (B, embed_dim), as of the other models."""
        return self.encode_image(x)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        """Logits of every image against every caption (num_images, num_captions); `.T` asks the other way."""
        image, text = self.encode_image(images, normalize=True), self.encode_text(ids, normalize=True)
        return self.logit_scale.exp() * image @ text.T


def clip_vit_b_32(**options) -> CLIP:
    """OpenAI's ViT-B/32: 151.3 M parameters, 224 px, QuickGELU. Options: see ClipConfig."""
    return CLIP(ClipConfig(**options))


def clip_vit_b_16(**options) -> CLIP:
    """OpenAI's ViT-B/16: 149.6 M parameters, 224 px, QuickGELU. Options: see ClipConfig."""
    return CLIP(ClipConfig(**{"patch_size": 16, **options}))


def clip_tiny(vocab_size: int = 32, in_chans: int = 1, image_size: int = 32, **options) -> CLIP:
    """The course's small CLIP for grey images of 32 or 64 pixels: convolutional stem, two blocks in each tower.

    `vocab_size` is that of its `tokenizers.WordTokenizer`. Options: see ClipConfig.
    """
    vision = {"vision_width": 96, "vision_layers": 2, "vision_heads": 3, "conv_stem": (32, 64), "pool": 4}
    text = {"context_length": 24, "text_width": 64, "text_layers": 2, "text_heads": 2, "quick_gelu": False}
    sizes = {"embed_dim": 64, "patch_size": 1, **vision, **text, **options}
    return CLIP(ClipConfig(vocab_size=vocab_size, in_chans=in_chans, image_size=image_size, **sizes))
