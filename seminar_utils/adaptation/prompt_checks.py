"""Whether a prompt can be learnt from what came: a CLIP with a text tower, class names, images, prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.biomedclip import BiomedCLIP
from ..models.clip import CLIP
from ..runtime import SeminarError

Clip = CLIP | BiomedCLIP


def check_text_tower(clip: nn.Module) -> None:
    """Raise SeminarError unless the model has a text tower that takes word vectors."""
    if not callable(getattr(clip, "encode_tokens", None)) or not callable(getattr(clip, "embed_tokens", None)):
        raise SeminarError(
            "a prompt is learnt through a text tower: a CLIP or BiomedCLIP is needed (embed_tokens, "
            f"encode_tokens), got {type(clip).__name__}"
        )


def check_names(class_names: Sequence[str]) -> list[str]:
    """The class names as words, `_` read as a space. SeminarError for none, doubles, or signs nobody can read."""
    if isinstance(class_names, str) or not len(class_names):
        raise SeminarError(f"expected a list of at least one class name, got {class_names!r}")
    for name in class_names:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise SeminarError(
                f"a class name is a word or several, without line breaks or other signs, got {name!r}"
            )
    names = [" ".join(name.replace("_", " ").split()) for name in class_names]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise SeminarError(
            f"class names differ from each other, got {', '.join(map(repr, double))} more than once"
        )
    return names


def check_images(clip: Clip, x: Tensor) -> None:
    """Raise SeminarError unless x is a batch of images, or of their features, that is finite and not empty."""
    fits = isinstance(x, Tensor) and x.is_floating_point() and len(x) > 0
    if not fits or not (x.ndim == 4 or x.shape[1:] == (clip.num_features,)):
        came = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise SeminarError(
            f"expected images (N, C, H, W) or their features (N, {clip.num_features}), at least one, got {came}"
        )
    if not torch.isfinite(x).all():
        raise SeminarError("these images (or features) hold NaN or infinite numbers")


def check_prompts(
    names: Sequence[str], ids: Tensor, name_lens: Tensor, length: int, n_ctx: int, limit: int
) -> None:
    """Raise SeminarError for a name without tokens, two prompts that are the same, or over `limit` tokens."""
    if (name_lens < 1).any():
        raise SeminarError(
            f"the class name {names[int(name_lens.argmin())]!r} gives this tokenizer no token at all"
        )
    same = [names[i] for i, row in enumerate(ids) if (ids == row).all(dim=1).sum() > 1]
    if same:
        raise SeminarError(f"this tokenizer cannot tell the prompts of {', '.join(map(repr, same))} apart")
    if length > limit:
        raise SeminarError(
            f"prompts have at most {limit} tokens in this CLIP, these would have {length}: {n_ctx} of the "
            f"context, {length - n_ctx} of the longest name with its ending, start and end. Take a smaller n_ctx"
        )
