"""`load("phantoms")`: phantoms as an `ImageSet`, cached on disk by their recipe when there are many."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
import zlib
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from seminar_utils.data.dataset import SPLITS, Card, ImageSet
from seminar_utils.data.phantoms import captions, domains_of, draw_factors, generate, task_labels
from seminar_utils.data.scanner import Scanner, scanner
from seminar_utils.runtime import SeminarError, cache_dir, unknown_name

SIZES = {"train": 6000, "val": 1000, "test": 2000}
BULK = 4000  # from this many images on, the cache is used
RECIPE_VERSION = 1  # raise it whenever the generator's pixels change

NOTE = (
    "SYNTHETIC: drawn by a program, no patient, no anatomy. Good for learning and testing methods, because "
    "every factor and the whole shift are known and the images are always there. Not good for any claim "
    "about a clinic: textures, lesions and noise are far simpler than real ones, and a method that wins here "
    "may lose on real images. A scanner is a few physical parameters, not a model of a device."
)


def load_phantoms(
    split: str = "train",
    n: int | None = None,
    scanner: str = "A",
    strength: float = 1.0,
    seed: int = 0,
    task: str = "size_tone",
) -> ImageSet:
    """Phantoms of one split: images (n, 64, 64, 1) with masks, captions, domains and factors.

    n: number of images (default 6000 / 1000 / 2000); image i is the same whatever n. scanner: "A", "B" or
    "C", or several letters ("AB") for a random mixture, recorded in `domains`. strength: how far from the
    reference scanner A (0) to the named one (1). seed: another seed, another data set; the splits of a seed
    never share a random stream. task: which labels, see `phantoms.TASKS`. Raises SeminarError on bad values.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise SeminarError(f"a seed is a non-negative integer, got {seed!r}")
    count = SIZES[split] if n is None else n
    stream = [int(seed), SPLITS.index(split)]
    scanners = _scanners(scanner, strength)
    factors = draw_factors(count, stream)
    labels, names = task_labels(factors, task)
    images, masks = _cached(count, scanners, stream) if count >= BULK else generate(count, scanners, stream)
    domains = domains_of(factors, scanners)
    kept = {name: values for name, values in factors.items() if name not in ("texture", "domain")}
    return ImageSet(
        name="phantoms",
        split=split,
        images=images[..., None],  # (n, 64, 64, 1)
        labels=labels,
        class_names=names,
        card=phantom_card({**SIZES, split: count}),
        masks=masks,
        captions=captions(factors, domains),
        domains=domains,
        factors=kept,
    )


def phantom_card(splits: dict[str, int]) -> Card:
    """What everybody should know before using a phantom."""
    return Card(
        name="phantoms",
        title="Phantoms: an organ with a lesion, three scanners",
        source="seminar_utils.data.phantoms, generated here from a seed",
        licence="MIT, as the code that draws them",
        modality="synthetic grey-level images, 64 x 64",
        splits=splits,
        synthetic=True,
        note=NOTE,
    )


def _scanners(names: str, strength: float) -> dict[str, Scanner]:
    """The scanners named by the letters of `names`, each at `strength`."""
    if not isinstance(names, str) or not names or len(set(names)) != len(names):
        raise SeminarError(f"scanner is one letter or several different ones, as 'C' or 'AB', got {names!r}")
    return {letter: scanner(letter, strength) for letter in names}


def _cached(n: int, scanners: dict[str, Scanner], stream: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks (n, 64, 64) from the cache, else generated and put there.

    A damaged file is generated again; a cache that cannot be written is done without, with one warning.
    """
    recipe = {"version": RECIPE_VERSION, "n": int(n), "stream": stream}
    recipe["scanners"] = {name: asdict(device) for name, device in scanners.items()}
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:20]
    path = cache_dir() / "phantoms" / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["images"], stored["masks"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        images, masks = generate(n, scanners, stream)
        _store(path, images=images, masks=masks)
        return images, masks


def _store(path: Path, **arrays: np.ndarray) -> None:
    """Write a cache file so that no other process ever sees half of it."""
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    except OSError as error:
        if part.exists():
            part.unlink()
        _warn_once(f"phantoms are not cached: {path.parent} cannot be written ({error.strerror})")


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
