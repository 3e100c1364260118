"""MAE: hide three quarters of an image, and learn by painting them in.

He et al., Masked Autoencoders Are Scalable Vision Learners, 2021 (arXiv 2111.06377, section 3). The encoder is
the course's ViT and sees the visible patches only; a small decoder sees their codes and a mask token for every
hidden patch. Parameter names are the official ones, so that the authors' full checkpoints load strictly.
The training loop is in `pretraining/mae_training.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .convert import load_weights
from .layers import Block, PatchEmbed, check_images
from .vit import VisionTransformer, sincos_positions

DECODER = ("mask_token", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred")
PIXEL_EPS = 1e-6  # added to a patch's variance


def patchify(x: Tensor, p: int) -> Tensor:
    """Images (B, C, H, W) -> patches (B, N, p * p * C), row by row; within a patch (row, column, channel)."""
    B, C, H, W = x.shape
    x = x.reshape(B, C, H // p, p, W // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, (H // p) * (W // p), p * p * C)


def unpatchify(patches: Tensor, p: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, p * p * C) -> images (B, C, H, W) on a grid of (H/p, W/p) patches."""
    B, h, w = len(patches), *grid
    x = patches.reshape(B, h, w, p, p, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, h * p, w * p)


def random_masking(
    tokens: Tensor, mask_ratio: float, noise: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the patches of the smallest noise: `int(N * (1 - mask_ratio))` of the tokens (B, N, D).

    Returns the kept tokens in the order of their noise (B, keep, D), the mask in the order of the image (B, N),
    1 = hidden, and `ids_restore` (B, N), which sorts kept, then hidden ones back. Give `noise` (B, N) to choose.
    Raises SeminarError if the ratio is outside (0, 1), or leaves nothing to see or nothing to paint.
    """
    B, N, D = tokens.shape
    if not 0 < mask_ratio < 1 or not 0 < int(N * (1 - mask_ratio)) < N:
        raise SeminarError(
            f"the mask ratio lies inside (0, 1) and leaves some of the {N} patches visible, some hidden; "
            f"got {mask_ratio}"
        )
    noise = torch.rand(B, N, device=tokens.device) if noise is None else noise.to(tokens.device)
    if noise.shape != (B, N):
        raise SeminarError(f"expected noise of shape {(B, N)}, one number a patch, got {tuple(noise.shape)}")
    keep = int(N * (1 - mask_ratio))
    order = noise.argsort(dim=1)  # (B, N), the first ones stay
    ids_restore = order.argsort(dim=1)  # (B, N), each patch's rank
    kept = tokens.gather(1, order[:, :keep, None].expand(-1, -1, D))  # (B, keep, D)
    return kept, (ids_restore >= keep).to(tokens.dtype), ids_restore


class Reconstruction(NamedTuple):
    """Pictures (B, C, H, W): what the encoder saw, what the decoder painted, and the two put together."""

    masked: Tensor
    painted: Tensor
    pasted: Tensor
    mask: Tensor  # (B, N), 1 = hidden


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches, decoder on all, mean squared error on the hidden ones (section 3).

    `norm_pix_loss`: the decoder predicts every patch normalised by its own mean and variance, which makes
    better features (table 1d) but pictures need the true patch's statistics to be shown.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_pix_loss: bool = True,
        eps: float = 1e-6,
    ):
        super().__init__()
        if img_size < patch_size or img_size % patch_size:
            raise SeminarError(f"the image's side must be a multiple of the patch, {patch_size}: got {img_size}")
        self.img_size, self.patch_size, self.in_chans = img_size, patch_size, in_chans
        self.grid, self.norm_pix_loss = img_size // patch_size, norm_pix_loss
        self.encoder_shape = {"dim": dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
        self.patch_embed = PatchEmbed(patch_size, in_chans, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = self._fixed_positions(dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, eps=eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=eps)

        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = self._fixed_positions(decoder_dim)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_dim, decoder_heads, mlp_ratio, eps=eps) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=eps)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * in_chans)
        self.apply(init_mae)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def _fixed_positions(self, dim: int) -> nn.Parameter:
        """Sine-cosine positions as a parameter that never learns: it is in the official files."""
        return nn.Parameter(sincos_positions(dim, self.grid).float(), requires_grad=False)

    def encode(self, x: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) -> codes of class token and visible patches (B, 1 + keep, D), mask, ids_restore."""
        self.check(x)
        tokens = self.patch_embed(x) + self.pos_embed[:, 1:]  # (B, N, D)
        kept, mask, ids_restore = random_masking(tokens, mask_ratio, noise)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)  # (B, 1, D)
        tokens = torch.cat([cls, kept], dim=1)  # (B, 1 + keep, D)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens), mask, ids_restore

    def decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Codes (B, 1 + keep, D) -> predicted patches (B, N, p * p * C), the hidden ones from mask tokens."""
        if not self.has_decoder:
            raise SeminarError("these weights hold MAE's encoder only, which cannot paint: take the full file")
        x = self.decoder_embed(latent)  # (B, 1 + keep, decoder_dim)
        B, N, D = *ids_restore.shape, x.shape[2]
        hidden = self.mask_token.expand(B, N + 1 - x.shape[1], -1).to(x.dtype)
        patches = torch.cat([x[:, 1:], hidden], dim=1)  # (B, N, D), kept ones first
        patches = patches.gather(1, ids_restore[:, :, None].expand(-1, -1, D))  # in the image's order
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def loss(self, x: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the hidden patches: pred (B, N, p * p * C) against the images x."""
        target = patchify(x, self.patch_size)  # (B, N, p * p * C)
        if self.norm_pix_loss:
            mean, std = patch_statistics(target)
            target = (target - mean) / std
        error = (pred.to(target) - target).square().mean(dim=-1)  # (B, N)
        return (error * mask).sum() / mask.sum()

    def forward(self, x: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) -> loss, predicted patches (B, N, p * p * C), mask (B, N)."""
        latent, mask, ids_restore = self.encode(x, mask_ratio, noise)
        pred = self.decode(latent, ids_restore)
        return self.loss(x, pred, mask), pred, mask

    @torch.no_grad()
    def reconstruct(
        self, x: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None, fill: float = 0.5
    ) -> Reconstruction:
        """The pictures to look at, in the pixel values of x; hidden patches are filled with `fill` in `masked`.

        After training with `norm_pix_loss` each patch gets the mean and spread of the true one back, so the
        picture is kinder than the model: brightness and contrast of a hidden patch are not its own guess.
        Raises SeminarError if the weights hold the encoder only.
        """
        _, pred, mask = self(x, mask_ratio, noise)
        true = patchify(x, self.patch_size)
        if self.norm_pix_loss:
            mean, std = patch_statistics(true)
            pred = pred * std + mean
        hidden = mask[:, :, None].bool()  # (B, N, 1)
        patches = (true.masked_fill(hidden, fill), pred, torch.where(hidden, pred, true))
        return Reconstruction(*(unpatchify(each, self.patch_size, (self.grid,) * 2) for each in patches), mask)

    def check(self, x: Tensor) -> None:
        """Raise SeminarError unless x is a batch of images of the size the positions are made for."""
        check_images(x, self.patch_embed.proj)
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise SeminarError(f"this MAE reads {self.img_size} x {self.img_size} images, got {tuple(x.shape)}")

    @property
    def has_decoder(self) -> bool:
        """False after loading a file that holds the encoder only."""
        return hasattr(self, "decoder_pred")


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased) of every patch (B, N, p * p * C), each (B, N, 1)."""
    return patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True) + PIXEL_EPS).sqrt()


def init_mae(module: nn.Module) -> None:
    """Xavier's uniform weights and zero biases, the patch embedding as if it were a linear layer."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))


def load_mae(model: MaskedAutoencoder, state: Mapping[str, Tensor]) -> MaskedAutoencoder:
    """Load an official file, full or encoder only (the model then loses its decoder); returns the model.

    Raises SeminarError if names or shapes do not fit.
    """
    state = state.get("model", state)  # where the official files keep the weights
    if not any(name.startswith("decoder") for name in state) and model.has_decoder:
        for name in DECODER:
            delattr(model, name)
    return load_weights(model, state)


def encoder_of(mae: MaskedAutoencoder, num_classes: int = 0, **options) -> VisionTransformer:
    """MAE's encoder as a VisionTransformer to fine-tune; options as there, `global_pool="token"` to probe.

    By default the head reads the mean of the patches through a NEW `fc_norm` (appendix A.1): the encoder's own
    `norm`, made for tokens, is left behind. The positions become learnable.
    """
    shape = {**mae.encoder_shape, "interpolation": "mae", "global_pool": "avg", **options}
    vit = VisionTransformer(mae.img_size, mae.patch_size, mae.in_chans, num_classes, **shape)
    fresh = {name: value for name, value in vit.state_dict().items() if name.startswith(("head.", "fc_norm."))}
    trained = {name: value for name, value in mae.state_dict().items() if name in vit.state_dict()}
    vit.load_state_dict({**fresh, **trained})
    return vit.to(mae.cls_token.device)


def mae_vit_b(**options) -> MaskedAutoencoder:
    """The paper's ViT-B/16 at 224 px with its decoder of 8 blocks. Options: see MaskedAutoencoder."""
    return MaskedAutoencoder(**options)


def mae_tiny(in_chans: int = 1, img_size: int = 32, patch_size: int = 4, **options) -> MaskedAutoencoder:
    """The course's small MAE: the shape of `vit_tiny`, a decoder of two blocks. Options: see MaskedAutoencoder."""
    encoder = {"dim": 96, "depth": 4, "num_heads": 3}
    decoder = {"decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 4}
    return MaskedAutoencoder(img_size, patch_size, in_chans, **{**encoder, **decoder, **options})
