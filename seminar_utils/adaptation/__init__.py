"""How to adapt at test time: one file a method, what they share in `base`, all by name in `registry`."""

from .base import Adapter, Source
from .norm import BatchNormAdapt, batch_statistics
from .registry import METHODS, create_method
from .tent import Tent, softmax_entropy

__all__ = [
    "METHODS",
    "Adapter",
    "BatchNormAdapt",
    "Source",
    "Tent",
    "batch_statistics",
    "create_method",
    "softmax_entropy",
]
