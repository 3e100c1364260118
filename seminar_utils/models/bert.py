"""BERT: a transformer that reads a whole text at once, here as the text tower of BiomedCLIP.

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2018 (arXiv 1810.04805). Unlike our other
blocks it normalises AFTER each residual, as the first transformer did (arXiv 1706.03762, section 3.1), with
eps 1e-12. Parameter names are those of the hub's files, without the pooler, which nobody reads here. There is
no dropout: the course does not train it from scratch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError

EPS = 1e-12


class SelfAttention(nn.Module):
    """Every token looks at every token that is not padding, softmax(q k^T / sqrt(d)) v per head."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise SeminarError(f"the number of heads must divide the width, got dim={dim}, heads={num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix the tokens x (B, N, D); mask (B, 1, 1, N) is true where a token may be looked at."""
        q, k, v = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)
            for layer in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)  # (B, N, D)


class AddAndNorm(nn.Module):
    """LayerNorm(residual + dense(x)), the end of both halves of a layer."""

    def __init__(self, in_dim: int, dim: int):
        super().__init__()
        self.dense = nn.Linear(in_dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (B, N, in_dim) and residual (B, N, D) -> (B, N, D)."""
        return self.LayerNorm(self.dense(x) + residual)


class BertLayer(nn.Module):
    """Attention, then two linear layers with a GELU between them; each is added and normalised."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int):
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(dim, num_heads), "output": AddAndNorm(dim, dim)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden_dim)})
        self.output = AddAndNorm(hidden_dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens x (B, N, D) -> (B, N, D)."""
        x = self.attention["output"](self.attention["self"](x, mask), residual=x)
        return self.output(F.gelu(self.intermediate["dense"](x)), residual=x)  # (B, N, hidden_dim) inside


class BertEmbeddings(nn.Module):
    """word + position + segment, normalised (figure 2); captions are one segment, number 0."""

    def __init__(self, vocab_size: int, dim: int, positions: int, segments: int):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, dim)
        self.position_embeddings = nn.Embedding(positions, dim)
        self.token_type_embeddings = nn.Embedding(segments, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, words: Tensor) -> Tensor:
        """Word vectors (B, N, D), of `word_embeddings` or learnt -> tokens (B, N, D)."""
        place = self.position_embeddings.weight[: words.shape[1]] + self.token_type_embeddings.weight[0]  # (N, D)
        return self.LayerNorm(words + place)


class Bert(nn.Module):
    """Embeddings and layers; `pad_id` marks the tokens nobody looks at. Defaults: BERT-base, uncased."""

    def __init__(
        self,
        vocab_size: int = 30522,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden_dim: int = 3072,
        positions: int = 512,
        segments: int = 2,
        pad_id: int = 0,
    ):
        super().__init__()
        self.pad_id, self.num_features = pad_id, dim
        self.embeddings = BertEmbeddings(vocab_size, dim, positions, segments)
        layers = (BertLayer(dim, num_heads, hidden_dim) for _ in range(depth))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.apply(init_bert)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, N) -> the last layer's tokens (B, N, D)."""
        return self.read(self.embeddings.word_embeddings(ids), ids != self.pad_id)

    def read(self, words: Tensor, seen: Tensor) -> Tensor:
        """Word vectors (B, N, D) -> the last layer's tokens (B, N, D); only where `seen` (B, N) is true."""
        mask = seen[:, None, None, :]  # (B, 1, 1, N)
        x = self.embeddings(words)  # (B, N, D)
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x


def init_bert(module: nn.Module) -> None:
    """Normal weights of 0.02 and zero biases, as the paper's code does."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
