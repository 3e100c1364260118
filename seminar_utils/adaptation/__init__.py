"""How to adapt at test time: one file a method, what they share in `base`; by name in `registry`."""

from .base import Adapter, Source
from .cotta import CoTTA
from .eata import EATA, ETA
from .lame import LAME
from .memo import MEMO, marginal_entropy
from .norm import BatchNormAdapt, batch_statistics
from .rdumb import RDumb, TentReset
from .registry import METHODS, create_method
from .sar import SAR
from .shot import SHOTIM, information_maximisation
from .t3a import T3A
from .tent import Tent, class_rows, softmax_entropy

__all__ = [
    "EATA",
    "ETA",
    "LAME",
    "MEMO",
    "METHODS",
    "SAR",
    "SHOTIM",
    "T3A",
    "Adapter",
    "BatchNormAdapt",
    "CoTTA",
    "RDumb",
    "Source",
    "Tent",
    "TentReset",
    "batch_statistics",
    "class_rows",
    "create_method",
    "information_maximisation",
    "marginal_entropy",
    "softmax_entropy",
]
