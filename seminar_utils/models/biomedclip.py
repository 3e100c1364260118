"""BiomedCLIP: CLIP's idea on 15 million pairs from biomedical articles, with a ViT and a BERT as towers.

Zhang et al., BiomedCLIP, 2023 (arXiv 2303.00915, section 2.2). The image tower is the course's ViT-B/16 without
head, the text tower BERT (PubMedBERT's sizes). Both are read at their class token. Parameter names are those of
the authors' file; `checkpoints.load_pretrained("biomedclip")` reads it. Captions come from `WordPieceTokenizer`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .bert import Bert
from .clip import check_ids
from .vit import VisionTransformer


@dataclass(frozen=True)
class BiomedClipConfig:
    """Width of the shared space, limits of a caption, and options of the towers.

    vision: options of VisionTransformer; text: of Bert, its vocabulary apart. A caption has at most
    `context_length` tokens, though the file's table of positions has 512 rows.
    """

    embed_dim: int = 512
    context_length: int = 256
    vocab_size: int = 30522
    vision: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)


class ImageTower(nn.Module):
    """`trunk`, then a linear map without bias into the shared space."""

    def __init__(self, embed_dim: int, options: dict[str, Any]):
        super().__init__()
        self.trunk = VisionTransformer(**{**options, "num_classes": 0})
        self.head = nn.ModuleDict({"proj": nn.Linear(self.trunk.num_features, embed_dim, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features (B, embed_dim), not normalised."""
        return self.head["proj"](self.trunk(x))


class TextTower(nn.Module):
    """BERT's class token through two linear layers without bias, a GELU between them."""

    def __init__(self, embed_dim: int, vocab_size: int, options: dict[str, Any]):
        super().__init__()
        self.transformer = Bert(vocab_size, **options)
        dim = self.transformer.num_features
        hidden_dim = (dim + embed_dim) // 2  # half way between the two widths
        self.proj = nn.Sequential(
            nn.Linear(dim, hidden_dim, bias=False), nn.GELU(), nn.Linear(hidden_dim, embed_dim, bias=False)
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> features (B, embed_dim), not normalised."""
        return self.proj(self.transformer(ids)[:, 0])  # (B, D) inside

    def read(self, words: Tensor, seen: Tensor) -> Tensor:
        """Word vectors (B, L, D), looked at where `seen` (B, L) -> features (B, embed_dim), not normalised."""
        return self.proj(self.transformer.read(words, seen)[:, 0])  # (B, D) inside


class BiomedCLIP(nn.Module):
    """The two towers and the learnt temperature, to be used like `clip.CLIP`."""

    def __init__(self, config: BiomedClipConfig):
        super().__init__()
        self.config, self.num_features = config, config.embed_dim
        self.visual = ImageTower(config.embed_dim, config.vision)
        self.text = TextTower(config.embed_dim, config.vocab_size, config.text)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Images (B, C, H, W) -> features (B, embed_dim), of length 1 if asked."""
        features = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, ids: Tensor, normalize: bool = False) -> Tensor:
        """Token ids (B, L), 0 behind the end -> features (B, embed_dim), of length 1 if asked.

        Raises SeminarError for captions longer than the context, ids that are not in the vocabulary, or a
        caption that starts with padding: its class token, the first one, is what is read.
        """
        check_ids(ids, self.config)
        if (ids[:, 0] == self.text.transformer.pad_id).any():
            raise SeminarError(f"a caption starts with its class token, got padding: {ids[:, 0].tolist()[:8]}")
        features = self.text(ids)
        return F.normalize(features, dim=-1) if normalize else features

    def embed_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) -> their word vectors (B, L, D) and the place of each end token (B,)."""
        check_ids(ids, self.config)
        end = (ids != self.text.transformer.pad_id).sum(dim=1) - 1  # (B,)
        return self.text.transformer.embeddings.word_embeddings(ids), end

    def encode_tokens(self, tokens: Tensor, end: Tensor) -> Tensor:
        """Word vectors (B, L, D) that end at `end` (B,) -> features (B, embed_dim), not normalised.

        Learnt prompts come in here, as in `clip.CLIP`; what lies behind the end is not looked at.
        """
        seen = torch.arange(tokens.shape[1], device=tokens.device) <= end[:, None]  # (B, L)
        return self.text.read(tokens, seen)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> one feature vector each (B, embed_dim), as of the other models."""
        return self.encode_image(x)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        """Logits of every image against every caption (num_images, num_captions)."""
        image, text = self.encode_image(images, normalize=True), self.encode_text(ids, normalize=True)
        return self.logit_scale.exp() * image @ text.T


def biomedclip(**options) -> BiomedCLIP:
    """The published model: 195.9 M parameters, 224 px. Options: see BiomedClipConfig."""
    return BiomedCLIP(BiomedClipConfig(**options))
