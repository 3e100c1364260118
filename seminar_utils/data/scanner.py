"""The phantoms' scanners: a few continuous physical parameters turn clean anatomy into pixels.

The chain is that of an X-ray detector with a display curve: optics blur, uneven sensitivity, exposure,
photon and electronic noise, display. Photon noise uses the Gaussian limit of the Poisson law (variance
proportional to the signal), and its random numbers are plain integer arithmetic on PCG64's raw bits, whose
stream numpy guarantees: so the same seed gives the same pixels, within one grey level, on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from seminar_utils.runtime import SeminarError, unknown_name

SIDE = 64  # pixels
_DRAWS = SIDE * SIDE + 5  # raw 64-bit numbers per image: noise of each pixel, five bias coefficients


@dataclass(frozen=True)
class Scanner:
    """What a scanner does to a clean image in [0, 1].

    gain: exposure, a factor on the signal. contrast: exponent of the display curve (1 is linear, above 1
    darkens; it keeps the order of grey levels). photons: photons a pixel of signal 1 collects (fewer are
    noisier). electronic: standard deviation of signal-independent noise. psf: standard deviation of the
    point spread in pixels. bias: relative amplitude of the smooth sensitivity field.
    """

    gain: float = 1.0
    contrast: float = 1.0
    photons: float = 2000.0
    electronic: float = 0.01
    psf: float = 0.5
    bias: float = 0.05

    def __post_init__(self) -> None:
        if min(self.gain, self.contrast, self.photons) <= 0 or min(self.electronic, self.psf, self.bias) < 0:
            raise SeminarError(f"gain, contrast and photons are positive, the rest not negative, got {self}")


SCANNERS = {
    "A": Scanner(),
    "B": Scanner(gain=1.15, contrast=0.85, photons=600.0, electronic=0.02, psf=0.8, bias=0.12),
    "C": Scanner(gain=0.86, contrast=1.15, photons=27.0, electronic=0.06, psf=1.5, bias=0.4),
}


def scanner(name: str, strength: float = 1.0) -> Scanner:
    """The scanner on the way from the neutral reference A (strength 0) to scanner `name` (strength 1).

    Gain and contrast move geometrically; the widths of noise, blur and bias linearly, that of photon noise
    being photons ** -0.5. Any strength in [0, 2] is allowed. Raises SeminarError otherwise.
    """
    if name not in SCANNERS:
        raise unknown_name("scanner", name, SCANNERS)
    if not isinstance(strength, Real) or not 0 <= strength <= 2:
        raise SeminarError(f"strength is a number in [0, 2], got {strength!r}")
    a, b = SCANNERS["A"], SCANNERS[name]

    def linear(start: float, end: float) -> float:
        return start + float(strength) * (end - start)

    return Scanner(
        gain=a.gain * (b.gain / a.gain) ** strength,
        contrast=a.contrast * (b.contrast / a.contrast) ** strength,
        photons=linear(a.photons**-0.5, b.photons**-0.5) ** -2,
        electronic=linear(a.electronic, b.electronic),
        psf=linear(a.psf, b.psf),
        bias=linear(a.bias, b.bias),
    )


def acquire(
    clean: np.ndarray, scanner: Scanner, seed: int | list[int] = 0, indices: np.ndarray | None = None
) -> np.ndarray:
    """Scan clean images: float (N, 64, 64) in [0, 1] to uint8 (N, 64, 64).

    indices: which numbers of the noise stream the images have (default 0 .. N-1), so that the noise of
    image i never depends on how many others are scanned with it. Raises SeminarError on another shape.
    """
    if clean.ndim != 3 or clean.shape[1:] != (SIDE, SIDE):
        raise SeminarError(f"clean images have shape (N, {SIDE}, {SIDE}), got {clean.shape}")
    noise, coefficients = _draw_noise(np.arange(len(clean)) if indices is None else indices, seed)
    blur = _blur_matrix(scanner.psf)  # (64, 64)
    signal = blur @ clean.astype(np.float32) @ blur.T  # (N, 64, 64)
    signal *= scanner.gain * _bias_field(coefficients, scanner.bias)  # (N, 64, 64)
    spread = np.sqrt(signal / np.float32(scanner.photons) + np.float32(scanner.electronic**2))
    signal += spread * noise  # (N, 64, 64)
    shown = np.clip(signal, 0, 1) ** np.float32(scanner.contrast)
    return (shown * 255 + 0.5).astype(np.uint8)


def _draw_noise(indices: np.ndarray, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Noise of mean 0 and variance 1 (N, 64, 64), and bias coefficients in [-1, 1] (N, 5), float32."""
    bits, position = np.random.PCG64(np.random.SeedSequence(seed)), 0
    raw = np.empty((len(indices), _DRAWS), np.uint64)
    for row, index in zip(raw, indices):
        row[:] = bits.advance((int(index) - position) * _DRAWS).random_raw(_DRAWS)
        position = int(index) + 1
    noise = _almost_normal(raw[:, :-5]).reshape(-1, SIDE, SIDE)
    return noise, (raw[:, -5:] >> np.uint64(11)).astype(np.float32) * np.float32(2.0**-52) - 1


def _almost_normal(raw: np.ndarray) -> np.ndarray:
    """A sum of the four 16-bit parts of each number, standardised: normal in shape up to 3.4 sigma."""
    total = np.zeros(raw.shape, np.int32)
    for shift in (0, 16, 32, 48):
        total += ((raw >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int32)
    width = np.sqrt(4 * (65536.0**2 - 1) / 12)
    return (total - np.float32(2 * 65535)) * np.float32(1 / width)


def _blur_matrix(psf: float) -> np.ndarray:
    """The matrix (64, 64) that blurs a column with a Gaussian of `psf` pixels; each row sums to 1."""
    offsets = np.arange(SIDE)[:, None] - np.arange(SIDE)
    weights = np.exp(-0.5 * (offsets / max(psf, 0.05)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _bias_field(coefficients: np.ndarray, amplitude: float) -> np.ndarray:
    """Smooth sensitivity 1 + amplitude * (quadratic polynomial within [-1, 1]), (N, 64, 64)."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    terms = np.stack([x, y, x * y, x * x - 0.5, y * y - 0.5]).reshape(5, -1)  # (5, 4096)
    field = (coefficients @ terms).reshape(-1, SIDE, SIDE)  # (N, 64, 64)
    return np.maximum(1 + np.float32(amplitude / 2) * field, 0.1)
