"""One image, many prompts: encode once, then answer each point, box or mask in milliseconds.

    predictor = SamPredictor(load_lite_medsam())
    predictor.set_image(image)                              # a second
    masks = predictor.predict(boxes=[[30, 40, 120, 200]]).masks  # a twentieth of one

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643, section 3); the walk through a volume is MedSAM's (Ma et
al., 2024, arXiv 2304.12306).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runtime import SeminarError
from .boxes import boxes_from_masks, check_boxes, check_points, numbers
from .intensity import Window, to_uint8
from .sam import Sam

CHUNK = 32  # prompts that go through the decoder at once: each holds a copy of the embedding


@dataclass(frozen=True)
class Prediction:
    """Answers to P prompts on an image of H x W: K masks each (3 with `multimask`, else 1)."""

    masks: Tensor  # (P, K, H, W), boolean, in the original image
    iou: Tensor  # (P, K), how well the model thinks each mask fits
    logits: Tensor  # (P, K, h, w), before resizing: one of them, (P, 1, h, w), can be the next prompt's `masks`

    def best(self) -> Tensor:
        """For each prompt the mask the model trusts most: (P, H, W), boolean."""
        return self.masks[torch.arange(len(self.masks)), self.iou.argmax(dim=1)]


class SamPredictor:
    """Segments one image at a time with any model of SAM's family, behind the pipeline of its weights.

    The model is put into eval mode. Coordinates are pixels (x, y) of the image as it was given.
    """

    def __init__(self, model: Sam):
        if not isinstance(model, Sam):
            raise SeminarError(f"expected a model of SAM's family, got {type(model).__name__}")
        self.model = model.eval()
        self.embedding: Tensor | None = None  # (1, D, h, w) of the current image
        self.size = (0, 0)  # its height and width

    @torch.no_grad()  # not inference_mode: the embedding may be kept to train a decoder on
    def set_image(self, image: np.ndarray | Tensor, window: Window = None) -> SamPredictor:
        """Encode an image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); returns the predictor.

        window: for CT or wide ranges, see `intensity.to_uint8`. Raises SeminarError for what is no such image.
        """
        self.embedding = None  # if this image is refused, no answer about the last one
        x = self.model.transform.image(image, window)[None]  # (1, C, S, S)
        weight = next(self.model.parameters())
        self.embedding = self.model.encode(x.to(weight.device, weight.dtype))
        self.size = tuple(np.shape(image)[:2])
        return self

    @torch.no_grad()
    def predict(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Answer P prompts about the current image in one call.

        Args: points (P, N, 2) as x, y, or (N, 2) for a single prompt, with labels (P, N) or (N,) of 1 (inside),
        0 (outside), -1 (no point); without labels all are inside; boxes (P, 4) as x0, y0, x1, y1; masks
        (P, 1, h, w), `logits` of an earlier answer. One point is ambiguous: `multimask` gives three readings.
        Raises SeminarError before an image is set, and for prompts that do not fit it; warns for a box that covers
        the whole image.
        """
        if self.embedding is None:
            raise SeminarError("no image yet: call set_image first")
        prompts = {**self._points(points, labels), **self._boxes(boxes)}
        if masks is not None:
            prompts["masks"] = numbers(masks, "masks")
        parts = [self.model.decode(self.embedding, **part, multimask=multimask) for part in _chunks(prompts)]
        logits, iou = (torch.cat(values) for values in zip(*parts))
        return Prediction(self.model.transform.masks(logits, self.size), iou, logits)

    def _points(self, points: Tensor | None, labels: Tensor | None) -> dict[str, Tensor]:
        """Points and labels as the decoder wants them: checked, one dimension for the prompts, scaled."""
        if points is None:
            return {} if labels is None else {"labels": numbers(labels, "labels")}
        points = check_points(points, self.size)  # (P, N, 2)
        labels = torch.ones(points.shape[:2]) if labels is None else numbers(labels, "labels")
        labels = labels[None] if len(points) == labels.ndim == 1 else labels  # (P, N)
        return {"points": self.model.transform.points(points, self.size), "labels": labels}

    def _boxes(self, boxes: Tensor | None) -> dict[str, Tensor]:
        if boxes is None:
            return {}
        return {"boxes": self.model.transform.boxes(check_boxes(boxes, self.size), self.size)}

    def predict_volume(
        self, volume: np.ndarray | Tensor, box: Iterable[float], window: Window = None, grow: float = 3.0
    ) -> Tensor:
        """Segment one object in a volume (D, H, W), slice by slice; returns booleans (D, H, W).

        The walk starts in the middle slice of the box (x0, y0, z0, x1, y1, z1), with its rectangle, and goes
        outwards both ways to z0 and z1. Every next slice is prompted with the box around the last mask, `grow`
        pixels wider for each slice since then, but never beyond the rectangle. Empty slices (all values equal)
        stay empty, and an empty mask stops nothing. Intensities are cut over the whole volume, see
        `intensity.to_uint8`.
        """
        pixels = to_uint8(volume, window)
        flat, first, last = _check_volume(pixels, box)
        result = torch.zeros(pixels.shape, dtype=torch.bool)
        middle = (first + last) // 2
        result[middle] = self._slice(pixels[middle], flat)
        for way in (range(middle + 1, last + 1), range(middle - 1, first - 1, -1)):
            seen, apart = result[middle], 0  # the last mask that was not empty, and how many slices ago
            for z in way:
                apart += 1
                result[z] = self._slice(pixels[z], _around(seen, grow * apart, flat))
                if result[z].any():
                    seen, apart = result[z], 0
        return result

    def _slice(self, pixels: np.ndarray, box: Tensor) -> Tensor:
        """The mask of one slice (H, W) by a box (1, 4); an empty slice is not shown to the model."""
        if np.ptp(pixels) == 0:
            return torch.zeros(pixels.shape, dtype=torch.bool)
        return self.set_image(pixels).predict(boxes=box).masks[0, 0].cpu()


def _around(mask: Tensor, grow: float, limit: Tensor) -> Tensor:
    """The box (1, 4) around a mask (H, W), grown, within `limit` (1, 4); all of `limit` for an empty mask."""
    if not mask.any():
        return limit
    box = boxes_from_masks(mask[None], grow)
    return torch.cat([box[:, :2].maximum(limit[:, :2]), box[:, 2:].minimum(limit[:, 2:])], dim=1)


def _chunks(prompts: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The prompts in portions; what does not fit together is left whole, for the decoder to complain about."""
    counts = {len(value) if value.ndim else 0 for value in prompts.values()}
    if len(counts) != 1 or max(counts) <= CHUNK:
        return [prompts]
    pieces = zip(*(value.split(CHUNK) for value in prompts.values()))
    return [dict(zip(prompts, piece)) for piece in pieces]


def _check_volume(volume: np.ndarray, box: Iterable[float]) -> tuple[Tensor, int, int]:
    """The rectangle (1, 4), the first and the last slice of a box (x0, y0, z0, x1, y1, z1)."""
    if volume.ndim != 3:
        raise SeminarError(f"expected a volume (D, H, W), got shape {volume.shape}")
    sides = numbers(box, "sides of the box").flatten().tolist()
    if len(sides) != 6:
        raise SeminarError(f"the box of a volume is (x0, y0, z0, x1, y1, z1), got {len(sides)} numbers")
    x0, y0, first, x1, y1, last = sides
    if not (0 <= first <= last < len(volume)) or first % 1 or last % 1:
        raise SeminarError(f"z0 <= z1 are whole slices from 0 to {len(volume) - 1}, got {first:g} and {last:g}")
    return check_boxes([[x0, y0, x1, y1]], volume.shape[1:]), int(first), int(last)
