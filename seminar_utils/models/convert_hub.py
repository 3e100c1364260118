"""Rename the hub's ViTs (transformers: ViTMAE, DINOv2) to our names, and join their q, k, v.

The hub keeps query, key and value apart; our `qkv` is the three stacked, in this order. Both the names in the
hub's files and those that transformers 5 gives its modules are understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..runtime import SeminarError

HUB_VIT = (
    (r"^(vit|dinov2)\.", ""),
    (r"^decoder\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.)?layers?\.", "blocks."),
    (r"^decoder_layers\.", "decoder_blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.(attention\.)?(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
UNUSED = "embeddings.mask_token"  # of DINOv2's own pre-training; no output depends on it


def from_hub(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, query, key and value joined to `qkv`.

    Raises SeminarError when one of the three is missing.
    """
    renamed = {_rename(name): value for name, value in state_dict.items() if not name.endswith(UNUSED)}
    joined = {}
    for name, value in renamed.items():
        part = re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name)
        if not part:
            joined[name] = value
        elif part[2] == "q":
            joined[f"{part[1]}.qkv.{part[3]}"] = _stack(renamed, part[1], part[3])
    return joined


def _stack(state: Mapping[str, Tensor], attention: str, kind: str) -> Tensor:
    names = [f"{attention}.{letter}.{kind}" for letter in "qkv"]
    missing = [name for name in names if name not in state]
    if missing:
        raise SeminarError(f"these weights lack {', '.join(missing)} (query, key and value belong together)")
    return torch.cat([state[name] for name in names])


def _rename(name: str) -> str:
    for pattern, ours in HUB_VIT:
        name = re.sub(pattern, ours, name)
    return name
