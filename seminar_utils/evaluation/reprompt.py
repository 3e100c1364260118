"""Many prompts on the same images: the slow encoder runs once, the decoder as often as a question is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..models.sam import Sam
from ..models.sam_transforms import SamTransform
from ..runtime import SeminarError
from .prompted import box_prompts, dice_each, filled_boxes, scaled_prompts


@dataclass(frozen=True, eq=False)
class Encoded:
    """N images behind one model's encoder; made by `encode_images`. All answers are masks (N, H, W), boolean."""

    model: Sam
    transform: SamTransform  # the model's own, or the one it was made to look through
    embeddings: Tensor  # (N, D, h, w)
    size: tuple[int, int]  # height and width of the images

    def first(self, count: int) -> Encoded:
        """The first `count` images only."""
        return replace(self, embeddings=self.embeddings[:count])

    @torch.no_grad()
    def segment(
        self, *, boxes: Tensor | None = None, points: Tensor | None = None, multimask: bool = False
    ) -> np.ndarray:
        """One mask for each image by its own box (N, 4), or its own points (N, P, 2), all inside.

        multimask: three masks are drawn and the most trusted is kept. Raises SeminarError unless there is one
        prompt for each image.
        """
        given = {"boxes": boxes, "points": points}
        prompts = scaled_prompts(self.transform, {k: v for k, v in given.items() if v is not None}, self.size)
        if any(len(value) != len(self.embeddings) for value in prompts.values()):
            raise SeminarError(
                f"one prompt an image is needed: {len(self.embeddings)} images, "
                f"{[len(value) for value in prompts.values()]} prompts"
            )
        found = []
        for part in torch.arange(len(self.embeddings)).split(8):
            index = torch.arange(len(part), device=self.embeddings.device)
            chosen = {name: value[part].to(index.device) for name, value in prompts.items()}
            logits, iou = self.model.decode(self.embeddings[part], index, **chosen, multimask=multimask)
            best = logits[index, iou.argmax(dim=1)][:, None]  # (B, 1, h, w)
            found.append(self.transform.masks(best, self.size)[:, 0].cpu())
        return torch.cat(found).numpy()


@torch.no_grad()
def encode_images(
    model: Sam, images: np.ndarray, transform: SamTransform | None = None, batch_size: int = 4
) -> Encoded:
    """Encode images (N, H, W, C) once. transform: look through another pipeline than the model's own."""
    transform, weight = transform or model.transform, next(model.parameters())
    model.eval()
    x = torch.stack([transform.image(image) for image in images]).to(weight)  # (N, C, S, S)
    embeddings = torch.cat([model.encode(part) for part in x.split(batch_size)])  # (N, D, h, w)
    return Encoded(model, transform, embeddings, images.shape[1:3])


def dice_by_looseness(
    encoded: Encoded | None, masks: np.ndarray, loosen: Sequence[float]
) -> dict[float, np.ndarray]:
    """Dice (N,) of boxes around masks (N, H, W) for each looseness, see `box_prompts`; without `encoded` the
    filled box itself."""
    found = {}
    for share in loosen:
        boxes = box_prompts(masks, share)
        answer = filled_boxes(boxes, masks.shape[1:]) if encoded is None else encoded.segment(boxes=boxes)
        found[share] = dice_each(masks, answer)
    return found
