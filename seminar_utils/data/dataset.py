"""One typed object for every data set of the course: an `ImageSet` with its `Card`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from seminar_utils.runtime import SeminarError

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Card:
    """What a reader must know before trusting a number from a data set.

    `splits` maps a split's name to its number of images; `synthetic` is True for generated images.
    """

    name: str
    title: str
    source: str
    licence: str
    modality: str
    splits: dict[str, int]
    synthetic: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """One split of a data set, checked when it is made (SeminarError on anything malformed).

    images: uint8 (N, H, W, C). labels: int64 (N,), or (N, L) of 0 / 1 when an image has several.
    masks: uint8 (N, H, W) or None. captions: N sentences or None. domains: (N,) strings (which
    scanner, which hospital) or None. factors: name -> array of N values or None.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    card: Card
    masks: np.ndarray | None = None
    captions: tuple[str, ...] | None = None
    domains: np.ndarray | None = None
    factors: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        _check_images(self)
        _check_labels(self)
        _check_extras(self)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, height, width, channels = self.images.shape
        kind = f"{count} images {height}x{width}x{channels}, {len(self.class_names)} classes"
        return f"ImageSet({self.name!r}, {self.split!r}: {kind})"

    @property
    def multi_label(self) -> bool:
        """True when an image may carry several labels (labels are (N, L) zeros and ones)."""
        return self.labels.ndim == 2

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """The images at `indices` (integers, or a boolean mask of length N), everything else alike."""
        chosen = _as_indices(indices, len(self))
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {key: parts[key][chosen] for key in ("images", "labels", "masks", "domains") if _has(parts[key])}
        if self.captions is not None:
            arrays["captions"] = tuple(self.captions[i] for i in chosen)
        if self.factors is not None:
            arrays["factors"] = {key: value[chosen] for key, value in self.factors.items()}
        return replace(self, **arrays)

    def torch(
        self, size: int | None = None, channels: int | None = None, device: str | torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All images as floats (N, C, size, size) in [0, 1], and the labels as int64.

        size: side in pixels (antialiased bilinear resizing; None keeps H x W). channels: 1 or 3 (grey
        is repeated, colour becomes luminance; None keeps). For sets too big for memory use `loader`.
        """
        import torch

        images = to_float(self.images, size, channels)  # (N, C, size, size)
        return images.to(device), torch.as_tensor(self.labels).to(device)

    def loader(
        self,
        batch_size: int,
        shuffle: bool = False,
        balanced: bool = False,
        seed: int = 0,
        size: int | None = None,
        channels: int | None = None,
        drop_last: bool = False,
    ) -> DataLoader:
        """Batches (x (B, C, size, size) in [0, 1], y) for training or evaluation.

        shuffle: a new order each epoch, fixed by `seed`. balanced: draw N images with replacement, every
        class equally likely, so that the model cannot follow the prevalence (single-label sets only).
        Raises SeminarError on a batch size below 1 or on balanced sampling of several labels per image.
        """
        import torch
        from torch.utils.data import DataLoader

        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise SeminarError(f"batch_size is an integer of at least 1, got {batch_size!r}")
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(
            _Batches(self, size, channels),
            batch_size=int(batch_size),
            shuffle=shuffle and not balanced,
            sampler=self._balanced_sampler(generator) if balanced else None,
            generator=generator,
            drop_last=drop_last,
            collate_fn=lambda batch: batch,  # `_Batches` already returns a whole batch
        )

    def _balanced_sampler(self, generator: torch.Generator):
        """Draws N indices with replacement; an image of a class with n images has weight 1 / n."""
        from torch.utils.data import WeightedRandomSampler

        if self.multi_label:
            raise SeminarError(f"balanced sampling needs one label per image, {self.name!r} has several")
        counts = np.bincount(self.labels, minlength=len(self.class_names))  # (K,)
        weights = 1.0 / counts[self.labels]  # (N,)
        return WeightedRandomSampler(weights.tolist(), len(self), replacement=True, generator=generator)


class _Batches:
    """The map-style data set behind `ImageSet.loader`: converts one batch at a time to floats."""

    def __init__(self, images: ImageSet, size: int | None, channels: int | None):
        self.source, self.size, self.channels = images, size, channels

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """torch's DataLoader asks for all indices of a batch at once through this method."""
        import torch

        images = to_float(self.source.images[indices], self.size, self.channels)  # (B, C, size, size)
        return images, torch.as_tensor(self.source.labels[indices])


def to_float(images: np.ndarray, size: int | None = None, channels: int | None = None) -> torch.Tensor:
    """uint8 images (N, H, W, C) as floats (N, C', size, size) in [0, 1]; see `ImageSet.torch`."""
    import torch
    import torch.nn.functional as F

    if size is not None and (not isinstance(size, int | np.integer) or size < 1):
        raise SeminarError(f"size is a side in pixels of at least 1, got {size!r}")
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255)  # (N, C, H, W)
    x = _with_channels(x, channels)
    if size is not None and tuple(x.shape[-2:]) != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)  # (N, C', size, size)
    return x.clamp_(0, 1)


def _with_channels(x: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Grey to colour by repeating, colour to grey by luminance (ITU-R BT.601)."""
    have = x.shape[1]
    if channels is None or channels == have:
        return x
    if (have, channels) == (1, 3):
        return x.repeat(1, 3, 1, 1)  # (N, 3, H, W)
    if (have, channels) == (3, 1):
        return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)  # (N, 1, H, W)
    raise SeminarError(f"channels is 1 or 3 (or None to keep {have}), got {channels!r}")


def _has(value: object) -> bool:
    return value is not None


def _as_indices(indices: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Indices or a boolean mask as an int64 array, checked against the number of images."""
    chosen = np.asarray(indices)
    if chosen.dtype == bool and chosen.shape == (count,):
        return np.flatnonzero(chosen)
    if chosen.size == 0:
        raise SeminarError("a subset needs at least one index, got none")
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or chosen.min() < -count or chosen.max() >= count:
        raise SeminarError(f"indices are integers below {count} or {count} booleans, got {indices!r:.80}")
    return chosen % count


def _check_images(s: ImageSet) -> None:
    where = f"data set {s.name!r}, split {s.split!r}"
    images = s.images
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[3] not in (1, 3):
        shape = getattr(images, "shape", type(images).__name__)
        raise SeminarError(f"{where}: images have shape (N, H, W, C) with C 1 or 3, got {shape}")
    if images.dtype != np.uint8:
        nan = images.dtype.kind == "f" and bool(np.isnan(images).any())
        found = f"{images.dtype} with NaN pixels" if nan else str(images.dtype)
        raise SeminarError(f"{where}: images are uint8 in 0..255, got {found}")
    if len(images) == 0:
        raise SeminarError(f"{where}: the split is empty, at least one image is needed")


def _check_labels(s: ImageSet) -> None:
    where = f"data set {s.name!r}, split {s.split!r}"
    names, labels = s.class_names, s.labels
    if not isinstance(names, tuple) or not names or len(set(names)) != len(names):
        raise SeminarError(f"{where}: class_names is a tuple of different names, got {names!r}")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim not in (1, 2):
        raise SeminarError(f"{where}: labels are an int64 array (N,) or (N, L), got {_describe(labels)}")
    if len(labels) != len(s.images):
        raise SeminarError(f"{where}: one label per image, got {len(labels)} labels for {len(s.images)} images")
    if labels.ndim == 2 and labels.shape[1] != len(names):
        raise SeminarError(f"{where}: labels have {labels.shape[1]} columns for {len(names)} class names")
    top = 1 if labels.ndim == 2 else len(names) - 1
    if labels.min() < 0 or labels.max() > top:
        raise SeminarError(f"{where}: labels lie in 0..{top}, got {labels.min()}..{labels.max()}")


def _check_extras(s: ImageSet) -> None:
    where, count = f"data set {s.name!r}, split {s.split!r}", len(s.images)
    expected = s.images.shape[:3]
    if s.masks is not None and (s.masks.shape != expected or s.masks.dtype != np.uint8):
        raise SeminarError(f"{where}: masks are uint8 of shape {expected}, got {_describe(s.masks)}")
    extras = {"captions": s.captions, "domains": s.domains, **(s.factors or {})}
    for name, values in extras.items():
        if values is not None and len(values) != count:
            raise SeminarError(f"{where}: {name} has {len(values)} entries for {count} images")


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
