"""How well does a promptable model segment? Prompts made from the true masks, one mask for each image.

A box already says where the object is and how large: a model must be better than the filled box. Points stand in
the middle of the object, boxes are tight or loosened by a share of their sides; both are fixed by the masks alone,
so that all models get the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..models.boxes import boxes_from_masks, check_boxes, check_points
from ..models.sam import Sam
from ..models.sam_transforms import SamTransform
from ..runtime import SeminarError
from .segmentation import dice


def box_prompts(masks: np.ndarray, loosen: float = 0.0) -> Tensor:
    """The boxes (N, 4) around masks (N, H, W), every side moved outwards by `loosen` times the box's side.

    A negative `loosen` cuts into the object. The boxes stay inside the image.
    """
    boxes = boxes_from_masks(torch.as_tensor(masks))
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)  # (N, 4): width, height, width, height
    outwards = boxes.new_tensor([-1, -1, 1, 1])
    limit = boxes.new_tensor([masks.shape[2] - 1, masks.shape[1] - 1]).repeat(2)
    return (boxes + loosen * sides * outwards).clamp(min=0).minimum(limit)


def point_prompts(masks: np.ndarray) -> Tensor:
    """For each mask (N, H, W) its innermost pixel, the one farthest from the outside: (N, 1, 2) as x, y."""
    points = []
    for mask in np.asarray(masks) != 0:
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]  # the image's border is outside too
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        points.append([[x, y]])
    return torch.tensor(points, dtype=torch.float32)


def filled_boxes(boxes: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The baseline: boxes (N, 4) as masks (N, H, W), everything inside belongs to the object."""
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist()):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return masks


@torch.no_grad()
def segment(
    model: Sam, images: np.ndarray, prompts: Mapping[str, Tensor], *, multimask: bool = False, batch_size: int = 16
) -> np.ndarray:
    """One mask (N, H, W), boolean, for each image (N, H, W, C) by its own prompt, in pixels of the images.

    Args: prompts: boxes (N, 4), or points (N, P, 2) and perhaps labels (N, P), all inside if left out; multimask:
    three masks are drawn, and the one the model trusts most is kept. The model is left in the mode it was in.
    Raises SeminarError for prompts that do not fit the images.
    """
    size, count, was_training = images.shape[1:3], len(images), model.training
    inputs = scaled_prompts(model.transform, prompts, size)
    if any(len(value) != count for value in inputs.values()):
        raise SeminarError(f"one prompt an image is needed: {count} images, {[len(v) for v in inputs.values()]}")
    weight, found = next(model.parameters()), []
    model.eval()
    for part in torch.arange(count).split(batch_size):
        x = torch.stack([model.transform.image(images[i]) for i in part.tolist()])  # (B, C, S, S)
        index = torch.arange(len(part), device=weight.device)
        chosen = {name: value[part] for name, value in inputs.items()}
        logits, iou = model(x.to(weight), index, **chosen, multimask=multimask)  # (B, K, h, w), (B, K)
        best = logits[index, iou.argmax(dim=1)][:, None]  # (B, 1, h, w)
        found.append(model.transform.masks(best, size)[:, 0].cpu())
    model.train(was_training)
    return torch.cat(found).numpy()


def scaled_prompts(
    transform: SamTransform, prompts: Mapping[str, Tensor], size: tuple[int, int]
) -> dict[str, Tensor]:
    """The prompts on images of `size`, checked, in pixels of what the encoder reads."""
    unknown = set(prompts) - {"boxes", "points", "labels"}
    if unknown or not {"boxes", "points"} & set(prompts):
        raise SeminarError(f"prompts are boxes, or points with labels, got {', '.join(prompts) or 'none'}")
    scaled = {}
    if "boxes" in prompts:
        scaled["boxes"] = transform.boxes(check_boxes(prompts["boxes"], size), size)
    if "points" in prompts:
        points = check_points(prompts["points"], size)
        scaled["points"] = transform.points(points, size)
        scaled["labels"] = torch.as_tensor(prompts.get("labels", torch.ones(points.shape[:2])))
    return scaled


def dice_each(masks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Dice of every image: true masks (N, H, W), found ones (N, H, W) -> (N,)."""
    return np.array([dice(mask, answer) for mask, answer in zip(np.asarray(masks) != 0, found)], dtype=np.float64)


def dice_by_prompt(model: Sam, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Dice (N,) of "box", "point" (the most trusted of three masks) and of the baseline "filled box".

    Args: images (N, H, W, C); masks (N, H, W), nonzero inside the one object to find.
    """
    boxes, points = box_prompts(masks), point_prompts(masks)
    found = {
        "box": segment(model, images, {"boxes": boxes}),
        "point": segment(model, images, {"points": points}, multimask=True),
        "filled box": filled_boxes(boxes, masks.shape[1:]),
    }
    return {name: dice_each(masks, answer) for name, answer in found.items()}
