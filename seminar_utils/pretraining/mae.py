"""MAE (He et al., 2021, arXiv 2111.06377): the network, its masks and its loss are in `models/mae.py`.

They are one model, so that `create_model("mae_tiny")` builds it and checkpoints load; the loop that trains it is
in `mae_training.py`. Both rooms give the same names.
"""

from ..models.mae import (
    DECODER,
    PIXEL_EPS,
    MaskedAutoencoder,
    Reconstruction,
    encoder_of,
    init_mae,
    load_mae,
    mae_tiny,
    patch_statistics,
    patchify,
    random_masking,
    unpatchify,
)
from ..models.vit import sincos_positions

__all__ = [
    "DECODER",
    "PIXEL_EPS",
    "MaskedAutoencoder",
    "Reconstruction",
    "encoder_of",
    "init_mae",
    "load_mae",
    "mae_tiny",
    "patch_statistics",
    "patchify",
    "random_masking",
    "sincos_positions",
    "unpatchify",
]
