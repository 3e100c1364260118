"""How to adapt: one file a method. At test time: what they share in `base`, by name in `registry`.

Offline, before the first patient and with labelled images (functions `fit_...`, not in the registry): CoOp,
CoCoOp, DAPL and Tip-Adapter; what prompts share is in `prompts`.
"""

from .base import Adapter, Source
from .cocoop import ConditionalPrompts, fit_cocoop
from .coop import PromptConfig, few_shots, fit_coop
from .cotta import CoTTA
from .dapl import DomainPrompts, dapl_loss, fit_dapl, pseudo_labels
from .eata import EATA, ETA
from .lame import LAME
from .memo import MEMO, marginal_entropy
from .neighbor_labels import NeighborLabels
from .norm import BatchNormAdapt, batch_statistics
from .prompts import PromptedCLIP
from .rdumb import RDumb, TentReset
from .registry import METHODS, create_method
from .sar import SAR
from .shot import SHOTIM, information_maximisation
from .t3a import T3A
from .tent import Tent, class_rows, softmax_entropy
from .tip_adapter import TipAdapter, tip_adapter, tip_adapter_f
from .tpt import CTPT, TPT
from .ttt import TTT
from .ttt_plus_plus import TTTPlusPlus

__all__ = [
    "CTPT",
    "EATA",
    "ETA",
    "LAME",
    "MEMO",
    "METHODS",
    "SAR",
    "SHOTIM",
    "T3A",
    "TPT",
    "TTT",
    "Adapter",
    "BatchNormAdapt",
    "CoTTA",
    "ConditionalPrompts",
    "DomainPrompts",
    "NeighborLabels",
    "PromptConfig",
    "PromptedCLIP",
    "RDumb",
    "Source",
    "TTTPlusPlus",
    "Tent",
    "TentReset",
    "TipAdapter",
    "batch_statistics",
    "class_rows",
    "create_method",
    "dapl_loss",
    "few_shots",
    "fit_cocoop",
    "fit_coop",
    "fit_dapl",
    "information_maximisation",
    "marginal_entropy",
    "pseudo_labels",
    "softmax_entropy",
    "tip_adapter",
    "tip_adapter_f",
]
