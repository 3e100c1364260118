"""The three conventions of stretching position embeddings, each against its own package."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seminar_utils.models.parity import relative_difference
from seminar_utils.models.vit import CONVENTIONS, interpolate_positions
from seminar_utils.torchvision_fix import import_torchvision

torchvision = import_torchvision()

GOLDEN = Path(os.environ.get("SEMINAR_GOLDEN") or Path(__file__).parent.parent / "golden")
GRIDS = [(6, 6), (17, 17), (14, 9), (5, 30)]


def positions(height=14, width=14, dim=24):
    return torch.randn(1, 1 + height * width, dim, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid[0] == grid[1]])
def test_torchvision_convention(grid):
    from torchvision.models.vision_transformer import interpolate_embeddings

    pos = positions()
    state = interpolate_embeddings(grid[0] * 16, 16, {"encoder.pos_embedding": pos})
    assert (
        relative_difference(interpolate_positions(pos, grid, "torchvision"), state["encoder.pos_embedding"]) < 1e-6
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("old", [(14, 14), (7, 12)])
def test_timm_convention(grid, old):
    resample = pytest.importorskip("timm.layers").resample_abs_pos_embed
    pos = positions(*old)
    reference = resample(pos, list(grid), old_size=list(old))
    assert relative_difference(interpolate_positions(pos, grid, "timm", old), reference) < 1e-6


@pytest.mark.parametrize("grid", GRIDS)
def test_dino_convention(grid):
    """Written out from DINO's rule: each side scaled by (n + 0.1) / N, sampled at (i + 0.5) / scale - 0.5."""
    pos = positions()
    patches = pos[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    scale = [(n + 0.1) / 14 for n in grid]
    expected = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    assert expected.shape[-2:] == grid
    result = interpolate_positions(pos, grid, "dino")
    assert relative_difference(result[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, -1, 24)) < 1e-6
    assert torch.equal(result[:, :1], pos[:, :1])


def test_dino_convention_gives_the_official_numbers():
    """Golden case 9, dino_loss: patch 8, a learnt 4 x 4 grid."""
    with np.load(GOLDEN / "dino_loss.npz", allow_pickle=False) as golden:
        if "in:pos_embed" not in golden:
            pytest.skip("this golden file has no position embeddings")
        pos = torch.from_numpy(golden["in:pos_embed"])
        official = {key: torch.from_numpy(golden[key]) for key in golden if key.startswith("out:pos_embed_for_")}
    assert official
    for key, expected in official.items():
        side = int(re.search(r"(\d+)px", key)[1]) // 8
        assert relative_difference(interpolate_positions(pos, (side, side), "dino"), expected) < 1e-12


def test_conventions_differ_and_leave_the_learnt_grid_alone():
    pos = positions()
    plain = pos[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    plain = F.interpolate(plain, size=(6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    far = {c: (interpolate_positions(pos, (6, 6), c)[:, 1:] - plain).abs().mean().item() for c in CONVENTIONS}
    print("\nmean difference from plain size=, 14 -> 6:", {c: round(value, 2) for c, value in far.items()})
    assert 0.1 < far["dino"] < 0.3 < far["timm"] < far["torchvision"]
    for convention in CONVENTIONS:
        assert torch.equal(interpolate_positions(pos, (14, 14), convention), pos)
