"""How a promptable model learns: losses of a mask, and a user who is played by the training itself.

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643, section 3 and appendix A): prompts are simulated from
the true mask, the first one a box or a point, the next ones points in what is still wrong; one point is ambiguous,
so of three masks only the best is taught. Ma et al., MedSAM, 2024 (arXiv 2304.12306): Dice + BCE, boxes only.
The loop is in `sam_training.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..models.boxes import boxes_from_masks
from ..models.sam import Sam
from ..runtime import SeminarError

Prompts = dict[str, Tensor]  # some of points, labels, boxes, masks, as `Sam.decode` takes them


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that fades on pixels already right (Lin et al., 2017, arXiv 1708.02002, eq. 5).

    Args: logits (P, K, h, w); target (P, 1, h, w) of 0 and 1; alpha: the weight of the object's pixels, 1 - alpha
    of the others. Returns the mean over the pixels (P, K).
    """
    target = target.expand_as(logits).to(logits.dtype)
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)  # the probability of the true answer
    weight = alpha * target + (1 - alpha) * (1 - target)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * (1 - right) ** gamma * bce).mean(dim=(-2, -1))


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Plain cross-entropy of every pixel: logits (P, K, h, w), target (P, 1, h, w) -> means (P, K)."""
    target = target.expand_as(logits).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor, squared: bool = False, smooth: float = 1.0) -> Tensor:
    """1 - 2 |A and B| / (|A| + |B|) with probabilities for A (Milletari et al., 2016, arXiv 1606.04797).

    Args: logits (P, K, h, w); target (P, 1, h, w) of 0 and 1; squared: square them in the denominator, as
    Milletari and MedSAM do; smooth: added to both sides of the fraction. Returns (P, K), in 0..1.
    """
    p, target = logits.sigmoid(), target.to(logits.dtype)
    both = (p * target).sum(dim=(-2, -1))
    each = (p**2 if squared else p).sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))  # a mask of 0 and 1 is its square
    return 1 - (2 * both + smooth) / (each + smooth)


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """The true intersection over union of the masks logits > 0: (P, K, h, w), (P, 1, h, w) -> (P, K)."""
    mask, target = logits > 0, target > 0.5
    both = (mask & target).sum(dim=(-2, -1)).float()
    return both / (mask | target).sum(dim=(-2, -1)).clamp(min=1)


@dataclass(frozen=True)
class MaskLoss:
    """The weights of the parts. SAM's by default: focal : Dice = 20 : 1, and the squared error of the guessed IoU.

    MedSAM: `MaskLoss(focal=0, bce=1, iou=0, squared=True)`; LiteMedSAM the same with iou=1.
    """

    focal: float = 20.0
    dice: float = 1.0
    bce: float = 0.0
    iou: float = 1.0
    squared: bool = False

    def __call__(self, logits: Tensor, guessed: Tensor, target: Tensor) -> Tensor:
        """The loss, a number.

        Args: logits (P, K, h, w); guessed: IoU (P, K); target (P, 1, h, w). Of the masks only the best one of each
        prompt is taught, by its own loss (section 3, "resolving ambiguity"); the IoU is taught for all of them.
        """
        each = self.dice * dice_loss(logits, target, self.squared)  # (P, K)
        each = each + (self.focal * focal_loss(logits, target) if self.focal else 0)
        each = each + (self.bce * bce_loss(logits, target) if self.bce else 0)
        return each.amin(dim=1).mean() + self.iou * F.mse_loss(guessed.float(), mask_iou(logits, target))


def jitter_boxes(boxes: Tensor, size: int, generator: Generator, share: float = 0.1, most: float = 20.0) -> Tensor:
    """Move every side of the boxes (P, 4) by normal noise: its deviation is `share` of the box's side.

    No side moves by more than `most` pixels, nor out of the image of `size` pixels, nor past the opposite side.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)  # (P, 4): width, height, width, height
    noise = torch.randn(boxes.shape, generator=generator).to(boxes) * share * sides
    moved = (boxes + noise.clamp(-most, most)).clamp(0, size - 1)
    return torch.cat([moved[:, :2].minimum(moved[:, 2:]), moved[:, :2].maximum(moved[:, 2:])], dim=1)


def sample_points(region: Tensor, generator: Generator) -> Tensor:
    """One pixel of each region (P, h, w), nonzero inside, all equally likely: (P, 2) as x, y.

    Raises SeminarError for an empty region.
    """
    weights = region.flatten(1).float()
    if not (weights.sum(dim=1) > 0).all():
        raise SeminarError(f"region {int((weights.sum(dim=1) == 0).nonzero()[0])} is empty: no point lies in it")
    place = torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0].to(region.device)  # (P,)
    width = region.shape[-1]
    return torch.stack([place % width, place // width], dim=1)


def first_prompt(
    targets: Tensor, scale: float, by_box: bool, generator: Generator, jitter: float = 0.1
) -> Prompts:
    """What a user gives first for the objects targets (P, 1, h, w): a box that is a little off, or one point.

    scale: pixels of the encoder's image for a pixel of the masks.
    """
    if by_box:
        size = int(targets.shape[-1] * scale)
        return {"boxes": jitter_boxes(_scaled(boxes_from_masks(targets[:, 0]), scale), size, generator, jitter)}
    points = sample_points(targets[:, 0], generator)[:, None]  # (P, 1, 2)
    return {"points": _scaled(points, scale), "labels": torch.ones_like(points[..., 0])}


def next_prompt(
    prompts: Mapping[str, Tensor], logits: Tensor, targets: Tensor, scale: float, generator: Generator
) -> Prompts:
    """The prompts so far, one more point where the last mask is wrong, and that mask (appendix A).

    Args: logits, targets (P, 1, h, w). The point says "inside" where the object was missed and "outside" where the
    mask ran over; where nothing is wrong it is any point of the object.
    """
    target = targets[:, 0] > 0.5
    wrong = (logits[:, 0] > 0) != target  # (P, h, w)
    wrong = torch.where(wrong.any(dim=(1, 2), keepdim=True), wrong, target)
    point = sample_points(wrong, generator)  # (P, 2)
    label = target[torch.arange(len(target)), point[:, 1], point[:, 0]].long()  # (P,)
    point, label = _scaled(point, scale)[:, None], label[:, None]
    if "points" in prompts:
        point = torch.cat([prompts["points"], point], dim=1)  # (P, N + 1, 2)
        label = torch.cat([prompts["labels"], label], dim=1)  # (P, N + 1)
    return {**prompts, "points": point, "labels": label, "masks": logits.detach()}


def _scaled(pixels: Tensor, scale: float) -> Tensor:
    """Pixels of the mask in pixels of the encoder's image: centre to centre."""
    return (pixels + 0.5) * scale - 0.5


def interactive_loss(
    model: Sam,
    embeddings: Tensor,
    image_index: Tensor,
    targets: Tensor,
    criterion: MaskLoss,
    *,
    rounds: int,
    by_box: bool,
    generator: Generator,
    jitter: float = 0.1,
) -> Tensor:
    """The mean loss over `rounds` of prompting, with one encoding of the images (appendix A).

    Args: embeddings (B, D, h, w); image_index (P,), targets (P, 1, 4h, 4w) of P objects. A single point is
    answered by three masks; every later round, and a box, by one.
    """
    scale = embeddings.shape[-1] * model.image_encoder.stride / targets.shape[-1]
    prompts, total = first_prompt(targets, scale, by_box, generator, jitter), 0.0
    for turn in range(rounds):
        ambiguous = turn == 0 and not by_box
        logits, guessed = model.decode(embeddings, image_index, **prompts, multimask=ambiguous)
        total = total + criterion(logits, guessed, targets)
        if turn + 1 < rounds:  # go on from the mask a user would get: the one the model trusts most
            trusted = guessed.argmax(dim=1)  # (P,)
            chosen = logits[torch.arange(len(trusted)), trusted][:, None]  # (P, 1, 4h, 4w)
            prompts = next_prompt(prompts, chosen, targets, scale, generator)
    return total / rounds
