"""How to adapt at test time: one file a method, what they share in `base`."""

from .base import Adapter, Source
from .norm import BatchNormAdapt, batch_statistics
from .tent import Tent, softmax_entropy

__all__ = ["Adapter", "BatchNormAdapt", "Source", "Tent", "batch_statistics", "softmax_entropy"]
