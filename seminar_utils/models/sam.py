"""Segment Anything: an image is encoded once, then every prompt costs only a small decoder.

Kirillov et al., Segment Anything, 2023 (arXiv 2304.02643). The parts are in `sam_encoder.py` (or `tiny_vit.py`),
`sam_prompts.py` and `sam_decoder.py`; MedSAM (arXiv 2304.12306) is SAM ViT-B with other weights and another
pipeline, LiteMedSAM puts a TinyViT in place of the encoder. Parameter names are those of the official files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .sam_decoder import MaskDecoder
from .sam_encoder import ImageEncoderViT
from .sam_prompts import PromptEncoder
from .sam_transforms import LiteMedSamTransform, MedSamTransform, SamTransform
from .tiny_vit import TinyViT


class Sam(nn.Module):
    """Image encoder, prompt encoder, mask decoder, and the `transform` that these weights need.

    `predictor.SamPredictor` is the comfortable way to use it on one image; this class works on tensors that went
    through `transform` already, with coordinates in pixels of what the encoder reads.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        transform: SamTransform,
    ):
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.transform = transform

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), as `transform` makes them -> embeddings (B, D, h, w). The slow part."""
        return self.image_encoder(images)

    def decode(
        self,
        embeddings: Tensor,
        image_index: Tensor | None = None,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """P prompts on B embedded images -> masks as logits (P, K, 4h, 4w) and their guessed IoU (P, K).

        Args: embeddings (B, D, h, w); image_index (P,), which of the B images each prompt is about (needed unless
        B is 1); points (P, N, 2) with labels (P, N) of 1 (inside), 0 (outside), -1 (no point, so that prompts may
        have different numbers of points); boxes (P, 4); masks (P, 1, 4h, 4w) as logits, those of an earlier
        answer. `multimask` gives the K = 3 readings of an ambiguous prompt instead of a single mask.
        Raises SeminarError when they do not fit together.
        """
        grid = tuple(embeddings.shape[-2:])
        image_size = (grid[0] * self.image_encoder.stride, grid[1] * self.image_encoder.stride)
        sparse, dense = self.prompt_encoder(image_size, grid, points, labels, boxes, masks)
        chosen = self.images_of(embeddings, image_index, len(sparse))  # (P, D, h, w)
        image_pe = self.prompt_encoder.pe_layer.grid(*grid)  # (1, D, h, w)
        return self.mask_decoder(chosen, image_pe, sparse, dense, multimask)

    def images_of(self, embeddings: Tensor, image_index: Tensor | None, count: int) -> Tensor:
        """For each of `count` prompts the embedding of its image: (P, D, h, w)."""
        if image_index is None:
            if len(embeddings) > 1:
                raise SeminarError(
                    f"{count} prompts for {len(embeddings)} images: say which is for which by image_index (P,), "
                    "e.g. torch.arange(B) for one prompt each"
                )
            return embeddings.expand(count, -1, -1, -1)
        index = torch.as_tensor(image_index)
        whole = not (index.is_floating_point() or index.dtype == torch.bool)
        if index.shape != (count,) or not whole or index.min() < 0 or index.max() >= len(embeddings):
            raise SeminarError(
                f"image_index is an integer from 0 to {len(embeddings) - 1} for each of the {count} prompts, got "
                f"{index.dtype} {index.tolist() if index.numel() <= 8 else tuple(index.shape)}"
            )
        return embeddings[index.to(embeddings.device)]

    def forward(self, images: Tensor, image_index: Tensor | None = None, **prompts) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and P prompts -> masks (P, K, 4h, 4w) as logits and IoU (P, K), see `decode`."""
        return self.decode(self.encode(images), image_index, **prompts)


def _full_size(encoder: nn.Module, transform: SamTransform) -> Sam:
    return Sam(encoder, PromptEncoder(), MaskDecoder(), transform)


def sam_vit_b(img_size: int = 1024, **options) -> Sam:
    """SAM ViT-B, 93.7 M parameters. Options: see ImageEncoderViT."""
    return _full_size(ImageEncoderViT(img_size, **options), SamTransform(img_size))


def sam_vit_l(img_size: int = 1024, **options) -> Sam:
    """SAM ViT-L, 312 M parameters. Options: see ImageEncoderViT."""
    size = {"dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)}
    return sam_vit_b(img_size, **{**size, **options})


def sam_vit_h(img_size: int = 1024, **options) -> Sam:
    """SAM ViT-H, 641 M parameters. Options: see ImageEncoderViT."""
    size = {"dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)}
    return sam_vit_b(img_size, **{**size, **options})


def medsam_vit_b(img_size: int = 1024, **options) -> Sam:
    """MedSAM: the network of SAM ViT-B behind MedSAM's own pipeline. Options: see ImageEncoderViT."""
    return _full_size(ImageEncoderViT(img_size, **options), MedSamTransform(img_size))


def lite_medsam(img_size: int = 256, **options) -> Sam:
    """LiteMedSAM, 9.8 M parameters; `checkpoints.medsam_lite` has its weights. Options: see TinyViT."""
    return _full_size(TinyViT(**options), LiteMedSamTransform(img_size))


def sam_tiny(img_size: int = 64, in_chans: int = 1, prompt_dim: int = 64, **options) -> Sam:
    """The course's small SAM for images of 64 to 96 pixels: the same classes with other numbers.

    A convolutional stem of stride 4, four blocks of width 128 (windows of 8, every second one global) and a
    decoder of width `prompt_dim`; its masks are as fine as the image. Options: see ImageEncoderViT.
    """
    size = {"patch_size": 4, "dim": 128, "depth": 4, "num_heads": 4, "window": 8, "global_attn_indexes": (1, 3)}
    size |= {"mlp_ratio": 2.0, "conv_stem": True}
    encoder = ImageEncoderViT(img_size, in_chans=in_chans, out_chans=prompt_dim, **{**size, **options})
    decoder = MaskDecoder(prompt_dim, num_heads=4, mlp_dim=4 * prompt_dim, iou_hidden_dim=prompt_dim)
    return Sam(encoder, PromptEncoder(prompt_dim), decoder, LiteMedSamTransform(img_size, in_chans))
