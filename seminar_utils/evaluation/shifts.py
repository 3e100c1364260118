"""Acquisition shifts from the physics, with one dial: severity 1 (mild) to 5 (severe).

These are ours. They are NOT the published corruption suite for MedMNIST (MedMNIST-C, Di Salvo et al. 2024): that
suite gives each data set its own kinds (characters on skin, bubbles on slides ...), draws from a global random
state, and its severities need not grow. Ours come from models of X-ray, MR, CT, ultrasound, stain, fundus and
archive (see `physics/`), each image has its own seeded draw, and each step takes it further away from the original
(a test holds every shift to that). Severity 3 of ours is no severity 3 of theirs: never compare numbers across
the two. All work on a batch of any size, side and device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..runtime import SeminarError, unknown_name
from .physics import ct, digital, fundus, mr, stain, ultrasound, xray
from .physics.draws import Draws

SEVERITIES = (1, 2, 3, 4, 5)

_BY_PHYSICS = {
    "xray": (
        xray.contrast,
        xray.gamma,
        xray.gaussian_noise,
        xray.poisson_noise,
        xray.blur,
        xray.bias_field,  # up to here in this order: lessons 02, 03 and 11 take the first six
        xray.exposure,
    ),
    "mr": (mr.mr_bias_field, mr.ghosting, mr.rician_noise),
    "ct": (ct.ct_window, ct.ct_kernel),
    "ultrasound": (ultrasound.speckle, ultrasound.depth_gain),
    "stain": (stain.stain_jitter, stain.stain_vectors),
    "fundus": (fundus.vignette, fundus.illumination, fundus.haze),
    "digital": (digital.jpeg, digital.pixelate),
}
SHIFTS: dict[str, Callable[[Tensor, int, Draws], Tensor]] = {
    function.__name__: function for functions in _BY_PHYSICS.values() for function in functions
}
COLOUR_ONLY = frozenset(function.__name__ for function in _BY_PHYSICS["stain"])


@dataclass(frozen=True)
class ShiftSet:
    """Shifts that belong together, and the severities at which they are tried."""

    shifts: tuple[str, ...]
    severities: tuple[int, ...] = SEVERITIES


SETS = {
    "xray": ShiftSet(tuple(f.__name__ for f in _BY_PHYSICS["xray"])),
    "xray-light": ShiftSet(("exposure", "gamma", "poisson_noise", "blur"), (1, 2, 3)),
    "mr": ShiftSet(("mr_bias_field", "ghosting", "rician_noise", "blur", "contrast")),
    "ct": ShiftSet(("ct_window", "ct_kernel", "gaussian_noise", "blur")),
    "ultrasound": ShiftSet(("speckle", "depth_gain", "contrast", "blur")),
    "pathology": ShiftSet(("stain_jitter", "stain_vectors", "blur", "jpeg")),
    "fundus": ShiftSet(("vignette", "illumination", "haze", "blur", "gaussian_noise")),
    "digital": ShiftSet(("jpeg", "pixelate")),
    "all-light": ShiftSet(tuple(SHIFTS), (3,)),
    "all": ShiftSet(tuple(SHIFTS)),
}


def shift_conditions(name: str, channels: int | None = None) -> list[tuple[str, int]]:
    """The (shift, severity) pairs of a named set of `SETS`.

    channels: of the images; with 1, the shifts that need colour are left out.
    Raises SeminarError for an unknown name.
    """
    if name not in SETS:
        raise unknown_name("set of shifts", name, SETS)
    chosen = [shift for shift in SETS[name].shifts if channels != 1 or shift not in COLOUR_ONLY]
    return [(shift, severity) for shift in chosen for severity in SETS[name].severities]


def apply_shift(
    x: Tensor, name: str, severity: int, seed: int = 0, index: Sequence[int] | Tensor | np.ndarray | None = None
) -> Tensor:
    """Shift a batch x (B, C, H, W) of floats in [0, 1]; returns the same shape, clipped to [0, 1].

    Args: name: one of `SHIFTS`; severity: 1 to 5; seed: fixes noise and directions; index: the images' numbers
    in their set (default 0 .. B-1). An image's draw depends on the seed and its number: give the numbers, and a
    set shifted batch by batch comes out as if shifted at once. The severity turns no dice: it only goes further.
    Raises SeminarError for an unknown name, a severity outside 1-5, pixels that are not floats in [0, 1], a
    stain on grey images, a negative seed, or indices that do not match the images.
    """
    if name not in SHIFTS:
        raise unknown_name("shift", name, SHIFTS)
    if not _is_integer(severity) or severity not in SEVERITIES:
        raise SeminarError(f"severity is one of {SEVERITIES}, got {severity!r}")
    if not _is_integer(seed) or seed < 0:
        raise SeminarError(f"a seed is a non-negative integer, got {seed!r}")
    _check_images(x, name)
    numbers = _numbers(index, len(x))
    return SHIFTS[name](x, int(severity), Draws(int(seed), numbers, name)).clamp(0, 1) if len(x) else x.clone()


def shift_distance(x: Tensor, shifted: Tensor) -> Tensor:
    """How far each image was moved: the root mean square difference of its pixels, (B,)."""
    if x.shape != shifted.shape:
        raise SeminarError(f"both batches should have one shape, got {tuple(x.shape)} and {tuple(shifted.shape)}")
    return (shifted - x).pow(2).mean(dim=(-3, -2, -1)).sqrt()


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_images(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise SeminarError(f"a shift takes float images (B, C, H, W), got {got}")
    if 0 in x.shape[1:]:
        raise SeminarError(f"a shift takes images with pixels, got (B, C, H, W) = {tuple(x.shape)}")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):  # also catches NaN
        raise SeminarError(f"pixels should lie in [0, 1], got [{x.min():.3g}, {x.max():.3g}]")
    if name in COLOUR_ONLY and x.shape[1] != 3:
        raise SeminarError(
            f"shift {name!r} changes the dyes of an H&E section and takes colour images (B, 3, H, W), "
            f"got {x.shape[1]} channel(s); for grey images take one of shift_conditions('all', channels=1)"
        )


def _numbers(index: Sequence[int] | Tensor | np.ndarray | None, count: int) -> list[int]:
    """The images' numbers as a list, checked."""
    if index is None:
        return list(range(count))
    numbers = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    if numbers.shape != (count,) or (count and (numbers.dtype.kind not in "iu" or numbers.min() < 0)):
        raise SeminarError(f"index holds one non-negative integer for each of {count} images, got {index!r:.80}")
    return numbers.tolist()
