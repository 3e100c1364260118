"""Four real medical images that come inside scikit-image's wheel, for looking at, offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seminar_utils.data.dataset import Card, ImageSet
from seminar_utils.runtime import SeminarError, unknown_name


@dataclass(frozen=True)
class _Picture:
    title: str
    source: str
    licence: str
    modality: str


PICTURES = {
    "retina": _Picture(
        "Fundus photograph of a normal left eye",
        "M. Haggstrom, WikiJournal of Medicine 1 (2) 2014, doi:10.15347/wjm/2014.008",
        "CC0 1.0",
        "fundus photography",
    ),
    "immunohistochemistry": _Picture(
        "Colonic glands, FHL2 stained with DAB, haematoxylin counterstain",
        "Center for Microscopy and Molecular Imaging (CMMI)",
        "no known copyright restrictions",
        "immunohistochemistry, bright field",
    ),
    "cell": _Picture(
        "A cell in saline, from a digital hologram",
        "P. Mueller et al., Optics Express 26(8) 2018, doi:10.1364/OE.26.010729",
        "CC0 1.0",
        "quantitative phase microscopy",
    ),
    "microaneurysms": _Picture(
        "Detail of a diabetic retina (green channel), image 07_dr of the HRF database",
        "A. Budai et al. 2013, doi:10.1155/2013/154860; scikit-image data, given by A. Maier",
        "CC0 1.0",
        "fundus photography, one channel",
    ),
}


def load_skimage(name: str, split: str = "test") -> ImageSet:
    """One picture as a set of one: images (1, H, W, C), label 0. Every split name gives the same picture.

    Raises SeminarError on an unknown name, or when this scikit-image lacks the file and there is no network.
    """
    if name not in PICTURES:
        raise unknown_name("picture", name, PICTURES)
    picture = PICTURES[name]
    image = _read(name)
    image = image[None] if image.ndim == 3 else image[None, :, :, None]  # (1, H, W, C)
    card = Card(
        name=name,
        title=picture.title,
        source=f"scikit-image's sample data; {picture.source}",
        licence=picture.licence,
        modality=picture.modality,
        splits={split: 1},
        note="A single real image, for looking at: nothing can be measured on one image.",
    )
    labels = np.zeros(1, np.int64)
    return ImageSet(name, split, np.ascontiguousarray(image[..., :3]), labels, (name,), card)


def _read(name: str) -> np.ndarray:
    """The picture as scikit-image gives it: from the wheel, or (other versions) from its download cache."""
    from skimage import data

    read: Callable[[], np.ndarray] = getattr(data, name)
    try:
        return read()
    except Exception as error:  # pooch, requests, urllib: all mean that the file could not be had
        raise SeminarError(
            f"scikit-image's picture {name!r} is not in its wheel and could not be downloaded ({error}): "
            'connect once, or use the embedded set load("phantoms")'
        ) from error
