"""MedMNIST v2: every 2D set and size, found on disk or downloaded, checked before it is used.

Source: Yang et al. 2023, "MedMNIST v2", https://medmnist.com; addresses, hashes and class names come from
the `medmnist` package. Only its table is read (`medmnist/info.py`), not the package, which would import
torchvision.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seminar_utils.data.dataset import SPLITS, Card, ImageSet
from seminar_utils.data.npz import read_npz
from seminar_utils.runtime import SeminarError, cache_dir, seminar_data, unknown_name

SIZES = (28, 64, 128, 224)
INSTEAD = 'the embedded set load("phantoms") needs no download'


@cache
def _info_module() -> Any:
    """The module medmnist/info.py, run on its own."""
    package = importlib.util.find_spec("medmnist")
    if package is None:
        raise SeminarError(f"the package medmnist is not installed: pip install medmnist; {INSTEAD}")
    path = Path(package.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("medmnist_info", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def medmnist_names() -> list[str]:
    """The names of all 2D sets, sorted."""
    return sorted(name for name in _info_module().INFO if not name.endswith("3d"))


def load_medmnist(name: str, split: str = "train", size: int = 28) -> ImageSet:
    """One split of a MedMNIST set: images (N, size, size, 1 or 3), labels (N,), or (N, L) for chestmnist.

    `domains` is set where the sets differ by a known one: the centre of pathmnist, the plane of the organ sets.

    The file is looked for in SEMINAR_DATA/medmnist, in the course's cache and in ~/.medmnist, then
    downloaded. Raises SeminarError on unknown names, a damaged file, or when there is no network.
    """
    if name not in medmnist_names():
        raise unknown_name("MedMNIST set", name, medmnist_names())
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if size not in SIZES:
        raise SeminarError(f"MedMNIST comes in sizes {SIZES}, got {size!r}")
    info = _info_module().INFO[name]
    path = find_file(name, size) or _download(name, size)
    images, labels, sizes = _read(path, split, info["n_channels"], size)
    class_names = tuple(info["label"][key] for key in sorted(info["label"], key=int))
    card = _card(name, info, sizes, path, info[_key("MD5", size)])
    domains = np.full(len(images), DOMAINS[name][split]) if name in DOMAINS else None
    try:
        return ImageSet(name, split, images, labels, class_names, card, domains=domains)
    except SeminarError as error:
        raise SeminarError(f"{path}: {error}; {_replace()}") from error


def file_name(name: str, size: int = 28) -> str:
    """The official name of the file: pneumoniamnist.npz, pneumoniamnist_64.npz ..."""
    return f"{name}.npz" if size == 28 else f"{name}_{size}.npz"


def find_file(name: str, size: int = 28) -> Path | None:
    """Where the file lies on this machine (first match of the three places), or None."""
    given, own = seminar_data(), _info_module().DEFAULT_ROOT
    folders = [given / "medmnist" if given else None, cache_dir() / "medmnist", Path(own) if own else None]
    paths = [folder / file_name(name, size) for folder in folders if folder]
    return next((path for path in paths if path.is_file()), None)


def _key(word: str, size: int) -> str:
    """The table's key for a size: "MD5" for 28 pixels, "MD5_64" ..."""
    return word if size == 28 else f"{word}_{size}"


def _download(name: str, size: int) -> Path:
    """Fetch the official file into the cache. Raises SeminarError, also naming what works offline."""
    from seminar_utils.checkpoints.download import fetch

    info = _info_module().INFO[name]
    target = cache_dir() / "medmnist" / file_name(name, size)
    try:
        return fetch([info[_key("url", size)]], target, md5=info[_key("MD5", size)])
    except SeminarError as error:
        raise SeminarError(f"{error}; {INSTEAD}") from error


def _read(path: Path, split: str, channels: int, size: int) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Images (N, size, size, C) and labels of one split, and the sizes of all splits."""
    all_images, all_labels = [f"{s}_images" for s in SPLITS], [f"{s}_labels" for s in SPLITS]
    stored = read_npz(path, [f"{split}_images", *all_labels], _replace(), needed=all_images)
    images, labels = stored[f"{split}_images"], stored[f"{split}_labels"]
    sizes = {s: len(stored[f"{s}_labels"]) for s in SPLITS}
    images = images[..., None] if channels == 1 and images.ndim == 3 else images  # (N, H, W, 1)
    if images.shape[1:] != (size, size, channels):
        raise SeminarError(f"{path}: images should be (N, {size}, {size}, {channels}), got {images.shape}")
    if labels.dtype.kind not in "iu" or labels.ndim != 2:
        raise SeminarError(f"{path}: labels should be integers (N, L), got {labels.dtype} {labels.shape}")
    labels = labels.astype(np.int64)  # (N, L)
    return images, labels[:, 0] if labels.shape[1] == 1 else labels, sizes


def _replace() -> str:
    return f"remove it and load again, or replace it by a complete copy; {INSTEAD}"


@cache
def _md5(path: Path, changed: float) -> str:
    """The file's md5; `changed` (its time stamp) makes a replaced file be read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _card(name: str, info: dict, splits: dict[str, int], path: Path, official: str) -> Card:
    """The card, which says whether the file is the official one."""
    same = _md5(path, path.stat().st_mtime) == official
    note = "the official file (md5 matches)" if same else "NOT the official file (md5 differs): placed by the user"
    return Card(
        name=name,
        title=info["python_class"],
        source=f"MedMNIST v2, https://medmnist.com. {info['description']}",
        licence=info["license"],
        modality=MODALITIES.get(name, "see source"),
        splits=splits,
        note=note,
    )


MODALITIES = {
    "pathmnist": "colon pathology, H&E",
    "chestmnist": "chest X-ray",
    "dermamnist": "dermatoscopy",
    "octmnist": "retinal optical coherence tomography",
    "pneumoniamnist": "paediatric chest X-ray",
    "retinamnist": "fundus photography",
    "breastmnist": "breast ultrasound",
    "bloodmnist": "blood cell microscopy",
    "tissuemnist": "kidney cortex microscopy",
    "organamnist": "abdominal CT, axial",
    "organcmnist": "abdominal CT, coronal",
    "organsmnist": "abdominal CT, sagittal",
}

# Where a split or a set is another domain than its relatives, as medmnist's descriptions say.
_CENTRES = {"train": "NCT-CRC-HE-100K", "val": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}
DOMAINS = {"pathmnist": _CENTRES} | {
    f"organ{letter}mnist": dict.fromkeys(SPLITS, plane)
    for letter, plane in {"a": "axial", "c": "coronal", "s": "sagittal"}.items()
}
