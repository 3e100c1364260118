"""Windows of a map of tokens: cutting it, putting it back, and who may see whom after a shift.

Pure functions, shared by Swin (arXiv 2103.14030, section 3.2) and whatever else attends in windows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..runtime import SeminarError

MASKED = -100.0  # the official value: after the softmax as good as minus infinity


def window_partition(x: Tensor, window: int) -> Tensor:
    """Cut a map (B, H, W, D) into windows (B * num_windows, window^2, D), row by row.

    Raises SeminarError if the window does not divide both sides (pad the map first).
    """
    B, H, W, D = x.shape
    if window < 1 or H % window or W % window:
        raise SeminarError(f"windows of {window} do not tile a map of {H} x {W}: pad it first")
    x = x.reshape(B, H // window, window, W // window, window, D)
    return x.transpose(2, 3).reshape(-1, window * window, D)  # (B, rows, columns, window, window, D) before


def window_reverse(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Put windows (B * num_windows, window^2, D) back into the map (B, height, width, D)."""
    rows, columns = (height // window, width // window) if window > 0 else (0, 0)
    if rows * columns == 0 or height % window or width % window or len(windows) % (rows * columns):
        raise SeminarError(f"{len(windows)} windows of {window} do not fill maps of {height} x {width}")
    x = windows.reshape(-1, rows, columns, window, window, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])  # (B, H, W, D)


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window: int64 (window^2, window^2) (section 3.2).

    Offset (rows, columns) = place(i) - place(j) + window - 1, from 0 to 2 window - 2 (the official sign);
    entry = row offset * (2 window - 1) + column offset. For a window of 2 the first row is 4, 3, 1, 0.
    """
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window)).reshape(-1, 2)  # (window^2, 2)
    offsets = places[:, None] - places[None, :] + window - 1  # (window^2, window^2, 2), from 0 on
    return offsets[..., 0] * (2 * window - 1) + offsets[..., 1]


def shift_mask(height: int, width: int, window: int, shift: tuple[int, int]) -> Tensor:
    """What to add to the attention of a map rolled by `shift`: (num_windows, window^2, window^2), 0 or -100.

    Rolling brings the first rows behind the last ones, so a window may hold regions that are no
    neighbours in the image; tokens of different regions must not see each other (section 3.2, figure 4).
    """
    came_last = [torch.arange(side) >= side - s for side, s in zip((height, width), shift)]  # by rolling
    region = (2 * came_last[0][:, None] + came_last[1].long()).reshape(1, height, width, 1)
    region = window_partition(region, window)[..., 0]  # (num_windows, window^2)
    return MASKED * (region[:, :, None] != region[:, None, :]).float()


@lru_cache(maxsize=64)
def cached_shift_mask(height: int, width: int, window: int, shift: tuple[int, int], device, dtype) -> Tensor:
    """`shift_mask` on a device, made once for each size of map."""
    with torch.inference_mode(False), torch.device("cpu"):  # the first caller must not decide what it is good for
        return shift_mask(height, width, window, shift).to(device=device, dtype=dtype)
