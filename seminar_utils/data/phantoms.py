"""Phantoms: synthetic 64 x 64 images of an organ with one lesion, every factor of which is known.

Three steps: `draw_factors` (what is there), `render` (clean anatomy and its mask), `acquire` (how a scanner
sees it, in scanner.py). Factors come from PCG64's raw bits, so the same seed gives the same factors with
every numpy on every platform, and image i is the same whatever the number of images asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from seminar_utils.data.scanner import SCANNERS, SIDE, Scanner, acquire, scanner
from seminar_utils.runtime import SeminarError, unknown_name

__all__ = [
    "FACTORS",
    "SCANNERS",
    "TASKS",
    "Scanner",
    "acquire",
    "captions",
    "domains_of",
    "draw_factors",
    "generate",
    "render",
    "scanner",
    "task_labels",
]

FACTORS = {
    "type": ("round", "elongated", "ring", "spiculated"),
    "size": ("small", "medium", "large"),
    "place": ("upper left", "upper right", "lower left", "lower right"),
    "tone": ("dark", "bright"),
    "shape": ("oval", "pear", "box"),
}
TASKS = ("size_tone", *FACTORS)
RADII = (4.0, 5.75, 8.0)  # of the three sizes, in pixels
_CONTINUOUS = ("cx", "cy", "width", "height", "tilt", "dx", "dy", "radius", "angle", "level", "contrast")
_GRID = 8  # the texture of the organ is a random 8 x 8 grid, interpolated
_CHUNK = 128  # images worked on at once: the arrays stay within the processor's cache


def draw_factors(n: int, seed: int | list[int] = 0) -> dict[str, np.ndarray]:
    """Factors of images 0 .. n-1: name -> (n,) integers for FACTORS, floats in [0, 1) for the rest.

    "domain" is the draw that picks one of several scanners; "texture" is (n, 8, 8).
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise SeminarError(f"the number of phantoms is an integer of at least 1, got {n!r}")
    columns = (*FACTORS, "domain", *_CONTINUOUS)
    raw = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(n * (len(columns) + _GRID**2))
    draws = (raw.reshape(n, -1) >> np.uint64(11)) * 2.0**-53  # (n, columns + 64) in [0, 1)
    factors = {name: draws[:, k] for k, name in enumerate(columns)}
    for name, values in FACTORS.items():
        factors[name] = (factors[name] * len(values)).astype(np.int64)
    return factors | {"texture": draws[:, len(columns) :].reshape(n, _GRID, _GRID)}


def render(factors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clean images, float32 (N, 64, 64) in [0, 1], and masks, uint8: 0 background, 1 organ, 2 lesion."""
    organ = _organ_distance(factors)  # (N, 64, 64), pixels outside the organ's edge
    lesion = _lesion_distance(factors)  # (N, 64, 64)
    sign = np.where(factors["tone"] == 1, 1.0, -0.85)
    change = _column(sign * (0.24 + 0.1 * factors["contrast"]))  # (N, 1, 1)
    tissue = _column(0.36 + 0.1 * factors["level"]) + _texture(factors["texture"])  # (N, 64, 64)
    clean = 0.05 + _coverage(organ) * (tissue - 0.05) + _coverage(lesion) * change
    masks = (organ < 0).astype(np.uint8)
    masks[lesion < 0] = 2
    return np.clip(clean, 0, 1), masks


def _column(values: np.ndarray) -> np.ndarray:
    """(N,) to float32 (N, 1, 1), to combine with images."""
    return np.asarray(values, np.float32)[:, None, None]


def _coverage(distance: np.ndarray) -> np.ndarray:
    """How much of a pixel lies inside an edge at signed `distance` pixels: a ramp one pixel wide."""
    return np.clip(0.5 - distance, 0, 1)


def _between(low: float, high: float, draw: np.ndarray) -> np.ndarray:
    return low + (high - low) * draw


def _rotated(cx: np.ndarray, cy: np.ndarray, angle: np.ndarray):
    """Coordinates (u, v) of every pixel, in pixels, about (cx, cy) and turned by `angle`: two (N, 64, 64)."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    dx, dy = x - _column(cx), y - _column(cy)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    return cos * dx + sin * dy, cos * dy - sin * dx


def _centre(factors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The organ's centre (x, y) in pixels, near the image's centre 31.5."""
    return 31.5 + _between(-2, 2, factors["cx"]), 31.5 + _between(-2, 2, factors["cy"])


def _organ_distance(factors: dict[str, np.ndarray]) -> np.ndarray:
    """Approximate signed distance to the organ's edge in pixels, negative inside, (N, 64, 64)."""
    u, v = _rotated(*_centre(factors), _between(-0.25, 0.25, factors["tilt"]))
    u /= _column(_between(25, 28, factors["width"]))
    v /= _column(_between(23.5, 26.5, factors["height"]))
    v *= 1 + _column(0.22 * (factors["shape"] == 1)) * u  # a pear is thinner on one side
    u *= u
    v *= v
    boxes = factors["shape"] == 2
    u[boxes], v[boxes] = 0.9 * u[boxes] ** 2, 0.9 * v[boxes] ** 2  # a superellipse of exponent 4
    root = np.sqrt(u + v)
    root[boxes] = np.sqrt(root[boxes])
    return 24 * (root - 1)


def _lesion_distance(factors: dict[str, np.ndarray]) -> np.ndarray:
    """Approximate signed distance to the lesion's edge in pixels, negative inside, (N, 64, 64)."""
    right, lower = factors["place"] % 2, factors["place"] // 2
    cx, cy = _centre(factors)
    cx = cx + (2 * right - 1) * _between(9, 12, factors["dx"])
    cy = cy + (2 * lower - 1) * _between(9, 12, factors["dy"])
    u, v = _rotated(cx, cy, _between(0, np.pi, factors["angle"]))
    radius = _column(np.array(RADII)[factors["size"]] * _between(0.93, 1.07, factors["radius"]))
    distance = np.empty_like(u)
    for kind, outline in enumerate((_round, _elongated, _ring, _spiculated)):
        rows = np.flatnonzero(factors["type"] == kind)
        distance[rows] = outline(u[rows], v[rows], radius[rows])
    return distance


def _round(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - radius


def _elongated(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """A line of half length 0.75 radius, thickened by 0.45 radius."""
    u = np.maximum(np.abs(u) - 0.75 * radius, 0)
    return np.sqrt(u * u + v * v) - 0.45 * radius


def _ring(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(u * u + v * v) - 0.75 * radius) - 0.25 * radius


def _spiculated(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """A core of 0.5 radius with six spikes that reach 1.15 radius."""
    spikes = np.cos(3 * np.arctan2(v, u)) ** 2
    return np.sqrt(u * u + v * v) - radius * (0.5 + 0.65 * spikes)


def _texture(grid: np.ndarray) -> np.ndarray:
    """Smooth tissue texture in [-0.04, 0.04]: the grid (N, 8, 8) interpolated to (N, 64, 64)."""
    where = np.linspace(0, _GRID - 1, SIDE)
    weights = np.maximum(1 - np.abs(where[:, None] - np.arange(_GRID)), 0).astype(np.float32)  # (64, 8)
    return weights @ (0.08 * grid.astype(np.float32) - 0.04) @ weights.T


def captions(factors: dict[str, np.ndarray], domains: np.ndarray) -> tuple[str, ...]:
    """One sentence for each image: what the lesion is, where it lies, which scanner took it."""
    kinds = ("round", "elongated", "ring-shaped", "spiculated")
    size, place, tone = (FACTORS[name] for name in ("size", "place", "tone"))
    rows = zip(*(factors[name].tolist() for name in ("size", "tone", "type", "place")), domains.tolist())
    return tuple(
        f"a {size[s]} {tone[t]} {kinds[k]} lesion in the {place[p]} of the organ, scanner {d}"
        for s, t, k, p, d in rows
    )


def task_labels(factors: dict[str, np.ndarray], task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (N,) and class names of a task: one factor, or "size_tone" (six classes: size x tone)."""
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if task != "size_tone":
        return factors[task], FACTORS[task]
    names = tuple(f"{size} {tone}" for size in FACTORS["size"] for tone in FACTORS["tone"])
    return 2 * factors["size"] + factors["tone"], names


def domains_of(factors: dict[str, np.ndarray], scanners: Iterable[str]) -> np.ndarray:
    """The name of the scanner each image is taken by, (N,): one of `scanners`, drawn at random."""
    names = list(scanners)
    return np.array(names)[(factors["domain"] * len(names)).astype(np.int64)]


def generate(n: int, scanners: dict[str, Scanner], seed: int | list[int] = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks, both uint8 (n, 64, 64), taken by the scanners that `domains_of` names."""
    factors = draw_factors(n, seed)
    domains = domains_of(factors, scanners)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    masks = np.empty((n, SIDE, SIDE), np.uint8)
    for first in range(0, n, _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, n))
        clean, masks[rows] = render({name: values[rows] for name, values in factors.items()})
        for name, device in scanners.items():
            own = np.flatnonzero(domains[rows] == name)
            images[rows[own]] = acquire(clean[own], device, _noise_seed(seed), rows[own])
    return images, masks


def _noise_seed(seed: int | list[int]) -> list[int]:
    """A stream for the noise that no stream of factors shares (numpy reads the seed k as [k, 0])."""
    return [*(seed if isinstance(seed, list) else [seed, 0]), 1]
