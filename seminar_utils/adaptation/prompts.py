"""Prompts with a learnt context: some of the word vectors in front of a class name belong to no word.

What CoOp, CoCoOp, DAPL and TPT share: blanks between the start token and the class name, a context that fills
them, text features read as ever. Zhou et al., Learning to Prompt for Vision-Language Models, 2022 (arXiv
2109.01134, section 3.2). It works on every CLIP of the course: `clip_tiny`, OpenAI's layout, BiomedCLIP with its
BERT. The encoders never move; who trains a context does so on a `frozen_copy`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.zero_shot import Tokenizer, ZeroShotModel
from ..runtime import SeminarError, unknown_name
from .prompt_checks import Clip, check_images, check_names, check_prompts, check_text_tower

POSITIONS = ("end", "middle", "front")  # of the class name, seen from the context


@torch.no_grad()
def image_features(clip: Clip, x: Tensor, batch_size: int = 256) -> Tensor:
    """Features of length 1 (N, E) of images (N, C, H, W), in batches; features (N, E) are only made length 1."""
    check_images(clip, x)
    if x.ndim == 2:
        return F.normalize(x.to(clip.logit_scale), dim=1)
    parts = x.split(batch_size)
    return torch.cat([clip.encode_image(part.to(clip.logit_scale), normalize=True) for part in parts])


def frozen_copy(clip: Clip) -> Clip:
    """A private copy in eval mode in which nothing can move."""
    check_text_tower(clip)
    return copy.deepcopy(clip).eval().requires_grad_(False)


def slot_order(length: int, n_ctx: int, name_lens: Sequence[int], position: str) -> Tensor:
    """Where the tokens of a prompt go, (P, L): `start, context, name, rest` re-ordered for each prompt.

    "end": as it is; "front": the name comes before the context; "middle": between its two halves.
    """
    if position not in POSITIONS:
        raise unknown_name("position", position, POSITIONS)
    slots = torch.arange(length).expand(len(name_lens), -1).clone()  # (P, L)
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    for row, count in zip(slots, name_lens):
        context, name = torch.arange(1, 1 + n_ctx), torch.arange(1 + n_ctx, 1 + n_ctx + count)
        row[1 : 1 + n_ctx + count] = torch.cat([context[:before], name, context[before:]])
    return slots


def insert_context(vectors: Tensor, context: Tensor, order: Tensor | None = None) -> Tensor:
    """Fill the blanks, which lie behind the start token: word vectors (P, L, D) -> (P, L, D).

    context: (M, D) for all prompts or (P, M, D), one for each; order: see `slot_order`, default "end".
    """
    n_ctx = context.shape[-2]
    context = context.expand(len(vectors), -1, -1)  # (P, M, D)
    x = torch.cat([vectors[:, :1], context, vectors[:, 1 + n_ctx :]], dim=1)  # (P, L, D)
    return x if order is None else x.gather(1, order[..., None].expand_as(x))


class Blanks(nn.Module):
    """One prompt for each name: start, `n_ctx` blanks, the name, its ending, the end token.

    Args: names: P of them; endings: what follows each name, for example "." or " lesion"; distinct: so many of the
    first prompts must differ (default: all). Called with a context it gives text features of length 1 (P, E).
    Raises SeminarError when a prompt does not fit the CLIP's context length, a name gives no token, or the
    tokenizer cannot tell two prompts apart.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Tokenizer,
        names: Sequence[str],
        n_ctx: int,
        endings: Sequence[str] | str = ".",
        position: str = "end",
        distinct: int | None = None,
    ):
        super().__init__()
        endings = [endings] * len(names) if isinstance(endings, str) else list(endings)
        if not isinstance(n_ctx, int) or n_ctx < 1:
            raise SeminarError(f"a context has at least one vector, got n_ctx={n_ctx!r}")
        device = clip.logit_scale.device
        with torch.no_grad():
            alone = clip.embed_tokens(tokenizer(list(names)).to(device))[1] - 1  # (P,) tokens of the name
            ids = tokenizer([name + ending for name, ending in zip(names, endings)]).to(device)  # (P, L)
            vectors, end = clip.embed_tokens(ids)
            check_prompts(
                names, ids[:distinct], alone, int(end.max()) + 1 + n_ctx, n_ctx, clip.config.context_length
            )
            blanks = vectors.new_zeros(len(names), n_ctx, vectors.shape[2])
            vectors = torch.cat([vectors[:, :1], blanks, vectors[:, 1:]], dim=1)[:, : int(end.max()) + 1 + n_ctx]
        self.n_ctx, self.dim = n_ctx, vectors.shape[2]
        order = slot_order(vectors.shape[1], n_ctx, alone.tolist(), position).to(device)
        self.register_buffer("vectors", vectors.clone())  # (P, L, D)
        self.register_buffer("end", end + n_ctx)  # (P,)
        self.register_buffer("order", order)  # (P, L)

    def forward(self, clip: Clip, context: Tensor) -> Tensor:
        """Context (M, D) or (P, M, D), or (B, 1, M, D) for each of B images -> features (P, E) or (B, P, E)."""
        if context.ndim == 4:
            B, P = len(context), len(self.vectors)
            many = context.expand(-1, P, -1, -1).flatten(0, 1)  # (B * P, M, D)
            filled = insert_context(self.vectors.repeat(B, 1, 1), many, self.order.repeat(B, 1))
            return F.normalize(clip.encode_tokens(filled, self.end.repeat(B)), dim=-1).unflatten(0, (B, P))
        filled = insert_context(self.vectors, context, self.order)  # (P, L, D)
        return F.normalize(clip.encode_tokens(filled, self.end), dim=-1)


@torch.no_grad()
def word_context(clip: Clip, tokenizer: Tokenizer, words: str) -> Tensor:
    """The vectors (M, D) of words, to start a context with: `a lesion in the`."""
    vectors, end = clip.embed_tokens(tokenizer([words]).to(clip.logit_scale.device))
    if end[0] < 2:
        raise SeminarError(f"a context starts from at least one word, got {words!r}")
    return vectors[0, 1 : end[0]].clone()


def random_context(*shape: int, like: Tensor, seed: int, std: float = 0.02) -> Tensor:
    """A context to start with, ~ N(0, std^2), the same on every device."""
    return (std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(like)


class PromptedCLIP(nn.Module):
    """A CLIP as a classifier whose prompts hold a learnt context; all that should move is `context`.

    Args: n_ctx: its length (CoOp: 16), random; words: start from these words instead, n_ctx is then their number;
    ending: what follows the class name; position: of the name, one of `POSITIONS`; class_specific: a context for
    each class (K, M, D) instead of one (M, D). The CLIP is shared, not copied, and not frozen here.
    Raises SeminarError for a model without text tower, bad class names, or a prompt that is too long.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        n_ctx: int = 16,
        *,
        words: str | None = None,
        ending: str = ".",
        position: str = "end",
        class_specific: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        check_text_tower(clip)
        names = check_names(class_names)
        start = None if words is None else word_context(clip, tokenizer, words)
        self.clip, self.class_names, self.num_features = clip, tuple(class_names), clip.num_features
        self.blanks = Blanks(clip, tokenizer, names, n_ctx if start is None else len(start), ending, position)
        shape = (len(names), self.blanks.n_ctx, self.blanks.dim)[0 if class_specific else 1 :]
        if start is None:
            start = random_context(*shape, like=self.blanks.vectors, seed=seed)
        self.context = nn.Parameter(start.expand(shape).clone())  # (M, D) or (K, M, D)

    @classmethod
    def from_template(
        cls, clip: Clip, tokenizer: Tokenizer, class_names: Sequence[str], template: str, **options
    ) -> PromptedCLIP:
        """Start as the zero-shot classifier of one template, "a lesion in the {} of the organ": same features.

        The words before `{}` become the context, those behind it the ending.
        """
        words, place, ending = template.partition("{}")
        if not place or not words.strip():
            raise SeminarError(f"a template has words and then {{}} where the class name goes, got {template!r}")
        return cls(clip, tokenizer, class_names, words=words.strip(), ending=ending, **options)

    def text_features(self) -> Tensor:
        """The classes' features of length 1 (K, E), with a gradient to the context."""
        return self.blanks(self.clip, self.context)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), or their features (B, E) -> features of length 1 (B, E)."""
        return F.normalize(x, dim=-1) if x.ndim == 2 else self.clip.encode_image(x, normalize=True)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), or their features (B, E) -> logits (B, K)."""
        return self.clip.logit_scale.exp() * self.embed(x) @ self.text_features().T

    @torch.no_grad()
    def classifier(self) -> ZeroShotModel:
        """The same classifier with its text features computed once: the context no longer moves."""
        return ZeroShotModel(self.clip, self.text_features())


@torch.no_grad()
def nearest_words(
    context: Tensor, clip: Clip, tokenizer: Callable, words: Sequence[str]
) -> list[tuple[str, float]]:
    """For each context vector (M, D) the nearest of some words and the Euclidean distance (CoOp, section 4.4).

    Of a word that the tokenizer cuts into pieces the mean counts.
    """
    table = torch.stack([word_context(clip, tokenizer, word).mean(dim=0) for word in words])  # (W, D)
    distance, index = torch.cdist(context.flatten(0, -2).to(table), table).min(dim=1)  # (M,)
    return [(words[i], float(d)) for i, d in zip(index.tolist(), distance)]
