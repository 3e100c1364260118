"""Load weights by name, with a report in words when they do not fit; rename what others call differently.

torchvision's ResNet names are ours already. The ViT names of timm, DINO and MAE are ours too; only
torchvision's differ, and only in name: its packed `in_proj` holds q, k, v in the order of our `qkv`.
Swin's names are Microsoft's; torchvision counts stages and merges as one list, and timm puts a merge at the
start of the next stage. Tables that follow from the sizes alone (`CONSTANTS`) are dropped from all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ..runtime import SeminarError

TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),  # the official files still carry the older linear_1
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
TORCHVISION_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.(\d*[13579])\.", lambda found: f"layers.{int(found[1]) // 2}.blocks."),
    (r"^features\.(\d*[02468])\.", lambda found: f"layers.{int(found[1]) // 2 - 1}.downsample."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
TIMM_SWIN = (
    (r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample."),
    (r"^head\.fc\.", "head."),
)
# Swin's, which follow from the sizes of window and map; and BERT's 0, 1, 2, ..., which older versions saved.
CONSTANTS = ("relative_position_index", "attn_mask", "embeddings.position_ids")


def from_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names; a torchvision ResNet's pass unchanged, ViT's and Swin's are renamed."""
    swin = any(name.startswith("features.0.") for name in state_dict)
    return _rename(state_dict, TORCHVISION_SWIN if swin else TORCHVISION_VIT)


def from_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names; a timm ViT's or ResNet's pass unchanged, its Swin's are renamed."""
    swin = any("relative_position_bias_table" in name for name in state_dict)
    return _rename(state_dict, TIMM_SWIN if swin else ())


def from_microsoft(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of Microsoft's Swin files (their part "model"): our names, without the constants."""
    return _rename(state_dict, ())


def from_biomedclip(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of BiomedCLIP's file: our names, without the constants."""
    return _rename(state_dict, ())


def _rename(state_dict: Mapping[str, Tensor], rules: tuple) -> dict[str, Tensor]:
    """Apply (pattern, replacement) rules to every name, in order, and leave out the constants."""
    renamed = {}
    for name, value in state_dict.items():
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        if not name.endswith(CONSTANTS):
            renamed[name] = value
    return renamed


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Copy the weights into the model and return it; every name and shape must match.

    Only BatchNorm's batch counter may be absent, as in older files: no output depends on it.
    Raises SeminarError that lists what is missing, unexpected or of another shape; the model is then
    left as it was.
    """
    report = fit_report(model, state_dict)
    if any(report.values()):
        words = "; ".join(f"{len(rows)} {kind}: {_shorten(rows)}" for kind, rows in report.items() if rows)
        raise SeminarError(f"these weights do not fit {type(model).__name__}: {words}{_hint(state_dict)}")
    model.load_state_dict(state_dict, strict=False)  # checked above; strict would refuse older files
    return model


def fit_report(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What does not fit, by kind: "missing", "unexpected" and "wrong shape"; all empty when all fits.

    Raises SeminarError if `state_dict` is not a mapping from names to tensors.
    """
    if not isinstance(state_dict, Mapping):
        raise SeminarError(f"expected a mapping from names to tensors, got {type(state_dict).__name__}")
    other = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if other:
        raise SeminarError(
            f"expected a mapping from names to tensors, but {_shorten(other)} are no tensors: the weights may lie "
            "one level deeper, as in file['model'] or file['state_dict']"
        )
    ours = model.state_dict()
    shapes = {
        name: (tuple(ours[name].shape), tuple(state_dict[name].shape)) for name in ours if name in state_dict
    }
    return {
        "missing": [n for n in ours if n not in state_dict and not n.endswith("num_batches_tracked")],
        "unexpected": [name for name in state_dict if name not in ours],
        "wrong shape": [f"{n} (expected {want}, got {got})" for n, (want, got) in shapes.items() if want != got],
    }


def _shorten(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _hint(state_dict: Mapping[str, Tensor]) -> str:
    """A likely reason, when the names show one."""
    if state_dict and all(name.startswith("module.") for name in state_dict):
        return ". Every name starts with 'module.', left by DataParallel: strip it"
    if "conv_proj.weight" in state_dict or "features.0.0.weight" in state_dict:
        return ". The names are those of torchvision: rename them with from_torchvision"
    if "head.fc.weight" in state_dict:
        return ". The names are those of timm: rename them with from_timm"
    if any(name.endswith("relative_position_index") for name in state_dict):
        return ". These are Microsoft's names, with constants that we do not keep: drop them with from_microsoft"
    return ""
