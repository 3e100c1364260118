"""What AdamW's users agree on: which parameters decay, and a rate that warms up and falls.

Loshchilov and Hutter, 2019 (arXiv 1711.05101) for the decay, 2017 (arXiv 1608.03983) for the cosine.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float = 0.0, spared: tuple[str, ...] = (".bias",)
) -> list[dict[str, Any]]:
    """Two groups for AdamW: what decays (matrices), then what does not: all that is 1-D, and names that end so.

    Frozen parameters are left out. Args: spared: ends of names ("pos_embed") that keep their scale as well.
    """
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[p.ndim < 2 or name.endswith(spared)]["params"].append(p)
    return groups


def half_cosine(epoch: float, lr: float, min_lr: float, warmup: float, epochs: float) -> float:
    """Linear warm-up, then half a cosine down to `min_lr`; `epoch` is fractional, anew for every iteration."""
    if epoch < warmup:
        return lr * epoch / warmup
    progress = min((epoch - warmup) / max(epochs - warmup, 1e-9), 1.0)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
