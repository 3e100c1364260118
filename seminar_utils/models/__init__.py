"""WHAT is adapted: the networks of the course, each built from scratch in one file.

`create_model(name)` makes one with random weights; `checkpoints.load_checkpoint` gives trained ones.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..runtime import SeminarError, unknown_name
from .biomedclip import biomedclip
from .clip import clip_tiny, clip_vit_b_16, clip_vit_b_32
from .fcn import fcn_small
from .mae import mae_tiny, mae_vit_b
from .neighbor_labels import resnet_small_neighbors
from .resnet import resnet18, resnet34, resnet50, resnet_small
from .sam import lite_medsam, medsam_vit_b, sam_tiny, sam_vit_b, sam_vit_h, sam_vit_l
from .swin import swin_b, swin_s, swin_t, swin_tiny
from .two_heads import resnet_small_rotation, resnet_small_simclr
from .vit import vit_b_16, vit_small_14, vit_small_16, vit_tiny

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet_small": resnet_small,
    "resnet_small_rotation": resnet_small_rotation,
    "resnet_small_simclr": resnet_small_simclr,
    "resnet_small_neighbors": resnet_small_neighbors,
    "fcn_small": fcn_small,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vit_tiny": vit_tiny,
    "vit_small_14": vit_small_14,
    "vit_small_16": vit_small_16,
    "vit_b_16": vit_b_16,
    "mae_tiny": mae_tiny,
    "mae_vit_b": mae_vit_b,
    "biomedclip": biomedclip,
    "clip_tiny": clip_tiny,
    "clip_vit_b_32": clip_vit_b_32,
    "clip_vit_b_16": clip_vit_b_16,
    "sam_tiny": sam_tiny,
    "sam_vit_b": sam_vit_b,
    "sam_vit_l": sam_vit_l,
    "sam_vit_h": sam_vit_h,
    "medsam_vit_b": medsam_vit_b,
    "lite_medsam": lite_medsam,
    "swin_tiny": swin_tiny,
    "swin_t": swin_t,
    "swin_s": swin_s,
    "swin_b": swin_b,
}


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return sorted(MODELS)


def create_model(name: str, **options) -> nn.Module:
    """Build a model with random weights: `create_model("resnet_small", num_classes=4, norm="gn")`.

    Raises SeminarError for an unknown name (with the nearest known ones) or option.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    try:
        return MODELS[name](**options)
    except TypeError as error:
        raise SeminarError(f"create_model({name!r}) cannot take these options: {error}") from error
