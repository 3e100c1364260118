"""Import torchvision beside a torch build that its compiled operators do not fit.

Why: torchvision's wheel carries a compiled library (`torchvision::nms`, `roi_align`, ...) built against
one flavour of torch. Beside another flavour, for example PyPI's torchvision next to a CPU-only torch,
that library cannot load. torchvision tolerates this, but then attaches shape-only ("fake") versions to
two of the operators without asking whether they exist, and the whole import stops with
"operator torchvision::nms does not exist", although models, transforms and data sets need none of them.
Declaring the two schemas first lets the import go through. Nothing is declared when the import works.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from .runtime import SeminarError

COMPILED = ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: torch.library.Library | None = None  # the declarations live as long as this object does


def import_torchvision() -> ModuleType:
    """Import torchvision and return it; call this before importing timm or medmnist too.

    If its compiled library cannot load, declares the two missing schemas and imports again; the
    operators in `missing_operators()` then stay unavailable, everything else works.
    Raises SeminarError if torchvision is not installed, and passes on any other error unchanged.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise SeminarError("torchvision is not installed: pip install torchvision") from error
    except RuntimeError as error:
        if not ("torchvision::" in str(error) and "does not exist" in str(error)):
            raise
    _forget_half_imported()
    _declare_schemas()
    return importlib.import_module("torchvision")


def missing_operators() -> list[str]:
    """The compiled operators of torchvision that cannot be called here ([] in a matching install)."""
    import_torchvision()
    from torchvision import extension

    return [] if extension._has_ops() else list(COMPILED)


def _forget_half_imported() -> None:
    """Drop what the failed import left behind, so that the next one starts afresh."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_schemas() -> None:
    """Tell torch the signatures of the two operators; they get no implementation."""
    global _declared
    if _declared is None:
        _declared = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            _declared.define(schema)
