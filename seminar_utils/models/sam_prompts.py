"""SAM's prompt encoder: points, boxes and masks become tokens and a map that the mask decoder reads.

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643, appendix A); places are written down as random Fourier
features, Tancik et al., 2020 (arXiv 2006.10739). Parameter names are those of the official files, without their
prefix `prompt_encoder.`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .layers import LayerNorm2d

NEGATIVE, POSITIVE, PADDING = 0, 1, -1  # labels of a point: outside the object, inside it, not there


class PositionEmbeddingRandom(nn.Module):
    """A place (x, y) in [0, 1]^2 as sines and cosines of 2 pi times random mixtures of 2x - 1 and 2y - 1.

    The mixtures are drawn once and belong to the checkpoint: another draw is another language.
    """

    def __init__(self, num_features: int, scale: float = 1.0):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, num_features))

    def forward(self, places: Tensor) -> Tensor:
        """places (..., 2) in [0, 1] -> (..., 2 * num_features)."""
        angles = 2 * math.pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """The centres of the cells of a map: (1, 2 * num_features, height, width)."""
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=matrix.device).to(matrix.dtype) + 0.5) / height
        x = (torch.arange(width, device=matrix.device).to(matrix.dtype) + 0.5) / width
        places = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        return self(places).permute(2, 0, 1)[None]  # (height, width, 2 * num_features) before


class PromptEncoder(nn.Module):
    """Prompts to (sparse tokens, dense map); P prompts at a time, each of which asks for one object.

    A point is its place plus a learnt vector for "inside" or "outside"; a box is its two corners; a mask is
    convolved down to the size of the embeddings. Coordinates are pixels of the image the encoder saw, and mean
    the centre of the pixel (+ 0.5).
    """

    def __init__(self, dim: int = 256, mask_in_chans: int = 16):
        super().__init__()
        if dim % 2 or mask_in_chans % 4:
            raise SeminarError(f"dim must be even, mask_in_chans a multiple of 4, got {dim} and {mask_in_chans}")
        self.dim = dim
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))  # out, in, two corners
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def embed_points(self, points: Tensor, labels: Tensor, image_size: tuple[int, int]) -> Tensor:
        """points (P, N, 2) as (x, y), labels (P, N) of 1 (inside), 0 (outside), -1 (no point) -> (P, N, D)."""
        places = self.pe_layer(self.relative(points, image_size))  # (P, N, D)
        kinds = torch.stack([self.point_embeddings[0].weight[0], self.point_embeddings[1].weight[0]])  # (2, D)
        real = (labels != PADDING)[..., None]  # (P, N, 1)
        return torch.where(real, places + kinds[labels.clamp(min=0)], self.not_a_point_embed.weight[0])

    def embed_boxes(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """boxes (P, 4) as (x0, y0, x1, y1) -> their corners (P, 2, D)."""
        corners = self.pe_layer(self.relative(boxes.unflatten(1, (2, 2)), image_size))  # (P, 2, D)
        return corners + torch.stack([self.point_embeddings[i].weight[0] for i in (2, 3)])

    def relative(self, coords: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Pixels (..., 2) of an image (height, width) -> the place of their centres in [0, 1]."""
        height, width = image_size
        like = self.no_mask_embed.weight
        coords = coords.to(like.dtype).to(like.device)  # the dtype first: MPS knows no float64
        return (coords + 0.5) / coords.new_tensor([width, height])

    def forward(
        self,
        image_size: tuple[int, int],
        grid: tuple[int, int],
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode P prompts: sparse tokens (P, N, D), points first, then corners, and a dense map (P, D, h, w).

        Args: image_size: (height, width) of the image the encoder saw; grid: (h, w) of its embeddings; points
        (P, N, 2) with labels (P, N), boxes (P, 4), masks (P, 1, 4h, 4w) as logits. A point prompt without a box
        gets a padding token, as in training. Raises SeminarError when they are none, or do not fit together.
        """
        count = check_prompts(grid, points, labels, boxes, masks)
        like = self.no_mask_embed.weight
        sparse = [like.new_zeros(count, 0, self.dim)]
        if points is not None:
            labels = labels.to(like.device, torch.long)
            sparse.append(self.embed_points(points, labels, image_size))
            if boxes is None:
                sparse.append(self.not_a_point_embed.weight.expand(count, 1, -1))
        if boxes is not None:
            sparse.append(self.embed_boxes(boxes, image_size))
        if masks is not None:
            dense = self.mask_downscaling(masks.to(like.dtype).to(like.device))  # (P, D, h, w)
        else:
            dense = like.reshape(1, -1, 1, 1).expand(count, -1, *grid)
        return torch.cat(sparse, dim=1), dense


def check_prompts(
    grid: tuple[int, int], points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, masks: Tensor | None
) -> int:
    """The number of prompts P; SeminarError when the tensors are none, or do not fit together."""
    shapes = {"points": ("P", "N", 2), "labels": ("P", "N"), "boxes": ("P", 4)}
    shapes["masks"] = ("P", 1, 4 * grid[0], 4 * grid[1])
    given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, Tensor) or not _fits(value.shape, shapes[name]):
            wanted = ", ".join(map(str, shapes[name]))
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise SeminarError(f"expected {name} as a tensor ({wanted}), got {came}")
    if (points is None) != (labels is None) or not given:
        raise SeminarError(f"a prompt is points with labels, boxes or masks, got {', '.join(given) or 'nothing'}")
    counts = {name: len(value) for name, value in given.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise SeminarError(f"all kinds of prompts must be given for the same P >= 1 objects, got {counts}")
    if points is not None:
        _check_labels(points, labels)
    return next(iter(counts.values()))


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Letters stand for any number."""
    return len(shape) == len(wanted) and all(isinstance(w, str) or w == s for w, s in zip(wanted, shape))


def _check_labels(points: Tensor, labels: Tensor) -> None:
    if labels.shape != points.shape[:2]:
        raise SeminarError(
            f"every point has a label: got points {tuple(points.shape)}, labels {tuple(labels.shape)}"
        )
    if not torch.isin(labels, torch.tensor([-1, 0, 1], device=labels.device)).all():
        raise SeminarError(
            f"labels are 1 (inside), 0 (outside) or -1 (no point), got {labels.unique().tolist()[:6]}"
        )
