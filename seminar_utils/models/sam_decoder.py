"""SAM's mask decoder: a few tokens and the image look at each other, then each mask token draws a mask.

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643, appendix A and figure 14). Parameter names are those of
the official files, without their prefix `mask_decoder.`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .layers import LayerNorm2d
from .sam_encoder import MLPBlock


class CrossAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v per head; inside, the width may be `downsample` times smaller."""

    def __init__(self, dim: int, num_heads: int, downsample: int = 1):
        super().__init__()
        inner = dim // downsample
        if dim % downsample or inner % num_heads:
            raise SeminarError(f"the number of heads must divide the width, got dim={inner}, heads={num_heads}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries q (P, N, D) read keys k and values v (P, M, D); returns (P, N, D)."""
        q, k, v = self.heads(self.q_proj(q)), self.heads(self.k_proj(k)), self.heads(self.v_proj(v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (P, heads, N, inner / heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # (P, N, inner) -> (P, N, D)

    def heads(self, x: Tensor) -> Tensor:
        """(P, N, inner) -> (P, heads, N, inner / heads)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TwoWayAttentionBlock(nn.Module):
    """Four steps, each with a residual and a LayerNorm AFTER it: tokens ask one another, tokens ask the image,
    an MLP on the tokens, the image asks the tokens.

    The first layer's self-attention replaces the tokens: no residual and no positions (`first`).
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = CrossAttention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = CrossAttention(dim, num_heads, downsample=2)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `queries` (P, N, D) and image `keys` (P, M, D), their positions likewise; returns both anew."""
        # 1. The tokens among themselves.
        if self.first:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q=q, k=q, v=queries)
        queries = self.norm1(queries)
        # 2. The tokens read the image.
        image = keys + key_pe
        read = self.cross_attn_token_to_image(q=queries + query_pe, k=image, v=keys)
        queries = self.norm2(queries + read)
        # 3. Every token alone.
        queries = self.norm3(queries + self.mlp(queries))
        # 4. The image reads the tokens.
        read = self.cross_attn_image_to_token(q=image, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys + read)


class TwoWayTransformer(nn.Module):
    """Two-way layers, then one last look of the tokens at the image.

    The tokens as they came in serve as the tokens' positions in every layer, so that a point never forgets where
    it was.
    """

    def __init__(self, depth: int, dim: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(dim, num_heads, mlp_dim, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = CrossAttention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (P, N, D) and image (P, D, h, w), with its positions (P or 1, D, h, w), look at each other.

        Returns the tokens (P, N, D) and the image (P, h*w, D).
        """
        keys, key_pe = (x.flatten(2).transpose(1, 2) for x in (image, image_pe))  # (P, h*w, D)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=key_pe)
        read = self.final_attn_token_to_image(q=queries + tokens, k=keys + key_pe, v=keys)
        return self.norm_final_attn(queries + read), keys


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int):
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Embeddings and prompts to masks, four times finer than the embeddings, and to a guess of their quality.

    A mask token, after the transformer, becomes the weights of one linear layer on the upscaled image (a
    hypernetwork). The first mask answers an unambiguous prompt; the other `num_multimask_outputs` offer the
    readings of an ambiguous one: whole, part, part of a part. One more token guesses each mask's IoU.
    """

    def __init__(
        self,
        dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        num_multimask_outputs: int = 3,
        iou_hidden_dim: int = 256,
    ):
        super().__init__()
        self.num_mask_tokens = num_multimask_outputs + 1
        self.transformer = TwoWayTransformer(depth, dim, num_heads, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(dim, iou_hidden_dim, self.num_mask_tokens, 3)

    def all_masks(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """All masks (P, 1 + K, 4h, 4w) as logits, the single one first, and their guessed IoU (P, 1 + K).

        Args: image (P, D, h, w): for each prompt the embedding of ITS image; image_pe (1, D, h, w); sparse
        (P, N, D) and dense (P, D, h, w): what the prompt encoder made of the prompts.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (2 + K, D)
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)  # (P, 2 + K + N, D)
        tokens, keys = self.transformer(image + dense, image_pe, tokens)
        fine = self.output_upscaling(keys.transpose(1, 2).unflatten(2, image.shape[-2:]))  # (P, D/8, 4h, 4w)
        weights = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        masks = (torch.stack(weights, dim=1) @ fine.flatten(2)).unflatten(2, fine.shape[-2:])
        return masks, self.iou_prediction_head(tokens[:, 0])

    def forward(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, multimask: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Masks as logits (P, K, 4h, 4w) and their guessed IoU (P, K); arguments as `all_masks`.

        K is the number of readings with `multimask`, else 1: the single mask.
        """
        masks, iou = self.all_masks(image, image_pe, sparse, dense)
        chosen = slice(1, None) if multimask else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]
