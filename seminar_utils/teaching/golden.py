"""Golden numbers: results of the official implementations on small seeded inputs, to hold ours against.

The files lie in `tests/golden/`; SEMINAR_GOLDEN names another folder with files of the same layout.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime import SeminarError, repository


def golden(case: str) -> dict[str, np.ndarray]:
    """The arrays of one case by key: `in:` inputs, `w:` weights, `hp:` settings, `out:` results.

    Raises SeminarError when the file is not there.
    """
    folder = os.environ.get("SEMINAR_GOLDEN") or (repository() or Path.cwd()) / "tests" / "golden"
    path = Path(folder) / f"{case}.npz"
    if not path.is_file():
        raise SeminarError(f"the golden numbers {path.name} were expected in tests/golden of the checkout")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


class TinyBN(nn.Module):
    """The network of the golden cases: two convolutions with BatchNorm, a mean over positions, a linear head."""

    def __init__(self, in_chans: int, width1: int, width2: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width1)
        self.conv2 = nn.Conv2d(width1, width2, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width2)
        self.fc = nn.Linear(width2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        x = torch.relu(self.bn1(self.conv1(x)))  # (B, width1, H, W)
        x = torch.relu(self.bn2(self.conv2(x)))  # (B, width2, H/2, W/2)
        return self.fc(x.mean(dim=(2, 3)))  # (B, K)


def tiny_bn(data: dict[str, np.ndarray]) -> nn.Module:
    """TinyBN in float64 with the sizes and weights of a golden case, in eval mode."""
    width1, in_chans = data["w:conv1.weight"].shape[:2]
    width2, num_classes = data["w:conv2.weight"].shape[0], data["w:fc.weight"].shape[0]
    model = TinyBN(in_chans, width1, width2, num_classes).double()
    weights = {key[2:]: torch.as_tensor(value) for key, value in data.items() if key.startswith("w:")}
    model.load_state_dict(weights, strict=True)
    return model.eval()
