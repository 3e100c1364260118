"""The methods by name, for those who choose one by a word: the benchmark, the command line, a table.

A method is a class (or a function) that takes a model and keyword arguments, its settings, and returns an adapter:
it maps a batch (B, C, H, W) to logits (B, K) and knows `reset()`. If its class says `needs_source`, it must see
source images first: `fit_source(batches)`. If it says `prepared`, not any model will do: see `preparation`. A
module of your own may add to METHODS before it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from ..runtime import SeminarError, unknown_name
from .base import Adapter, Source
from .cotta import CoTTA
from .eata import EATA, ETA
from .lame import LAME
from .memo import MEMO
from .neighbor_labels import NeighborLabels
from .norm import BatchNormAdapt
from .rdumb import RDumb, TentReset
from .sar import SAR
from .shot import SHOTIM
from .t3a import T3A
from .tent import Tent
from .tpt import CTPT, TPT
from .ttt import TTT
from .ttt_plus_plus import TTTPlusPlus

METHODS: dict[str, Callable[..., Adapter]] = {
    "source": Source,
    "bn": BatchNormAdapt,
    "tent": Tent,
    "eta": ETA,
    "eata": EATA,
    "sar": SAR,
    "cotta": CoTTA,
    "memo": MEMO,
    "t3a": T3A,
    "lame": LAME,
    "shot_im": SHOTIM,
    "rdumb": RDumb,
    "tent_reset": TentReset,
    "ttt": TTT,
    "ttt_plus_plus": TTTPlusPlus,
    "neighbor_labels": NeighborLabels,
    "tpt": TPT,
    "c_tpt": CTPT,
}


def settings_of(name: str) -> dict[str, Any]:
    """The settings that a method takes, with their defaults (`inspect.Parameter.empty` where it has none).

    Raises SeminarError for an unknown method, with the nearest known ones.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    settings = list(inspect.signature(METHODS[name]).parameters.values())[1:]  # the first is the model
    return {one.name: one.default for one in settings if one.kind is not one.VAR_KEYWORD}


def create_method(name: str, model: nn.Module, **settings: Any) -> Adapter:
    """The adapter of a method on a copy of `model`: `create_method("tent", model, lr=1e-3)`.

    Raises SeminarError for an unknown name or setting, and as the method itself does.
    """
    known = settings_of(name)
    for setting in settings:
        if setting not in known:
            raise (
                unknown_name(f"setting of {name}", setting, known)
                if known
                else SeminarError(f"the method {name!r} takes no settings, got {setting!r}")
            )
    return METHODS[name](model, **settings)


def needs_source(name: str) -> bool:
    """Whether a method must see source images (`fit_source`) before its first patient."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return bool(getattr(METHODS[name], "needs_source", False))


def preparation(name: str) -> str | None:
    """What a method asks of its model, None for nothing: "rotation", "simclr", "neighbors" or "prompts".

    A small model with it is `create_model(f"resnet_small_{preparation(name)}")`; so ends the name of every model
    that was built for it, and a benchmark goes by that. "prompts" asks for a `PromptedCLIP` instead.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return getattr(METHODS[name], "prepared", None)
