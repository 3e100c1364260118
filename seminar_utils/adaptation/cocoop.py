"""CoCoOp: a context that depends on the image.

Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022 (arXiv 2203.05557). A small
network (the meta-net) turns the image's feature into one vector, which is added to every context vector. CoOp's
context fits the classes it was learnt with; this one should carry over to others. The price: every image has its
own prompts, so the text tower runs K times for each image, at test time too. Offline, like CoOp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.zero_shot import Tokenizer
from .coop import PromptConfig, check_labels, train_context
from .prompt_checks import Clip
from .prompts import PromptedCLIP, frozen_copy, image_features

DEFAULTS = PromptConfig(lr=2e-3, epochs=10, batch_size=1)  # the paper's


class ConditionalPrompts(PromptedCLIP):
    """A `PromptedCLIP` whose context is moved by `meta_net(image feature)`, a bottleneck of 1/16 of its width.

    Its options are those of `PromptedCLIP`, but the context is one for all classes. What moves: `context` and
    `meta_net`. The meta-net's weights are drawn from `seed`.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        n_ctx: int = 4,
        *,
        words: str | None = None,
        ending: str = ".",
        position: str = "end",
        seed: int = 0,
    ):
        super().__init__(
            clip, tokenizer, class_names, n_ctx, words=words, ending=ending, position=position, seed=seed
        )
        width = clip.num_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.meta_net = nn.Sequential(
                nn.Linear(width, max(1, width // 16)), nn.ReLU(), nn.Linear(max(1, width // 16), self.blanks.dim)
            ).to(self.context)

    def text_features_for(self, features: Tensor) -> Tensor:
        """Image features (B, E) -> the classes' text features for each image (B, K, E), of length 1."""
        shift = self.meta_net(features)[:, None, :]  # (B, 1, D)
        return self.blanks(self.clip, (self.context + shift)[:, None])  # the context is (B, 1, M, D) here

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), or their features (B, E) -> logits (B, K)."""
        features = self.embed(x)  # (B, E)
        cosines = torch.einsum("be,bke->bk", features, self.text_features_for(features))
        return self.clip.logit_scale.exp() * cosines


def fit_cocoop(
    clip: Clip,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    x: Tensor,
    labels: Tensor | np.ndarray,
    config: PromptConfig = DEFAULTS,
    **options,
) -> ConditionalPrompts:
    """CoCoOp: context and meta-net learnt by cross-entropy on labelled images, encoders frozen; see `fit_coop`."""
    model = ConditionalPrompts(frozen_copy(clip), tokenizer, class_names, seed=config.seed, **options)
    features = image_features(model.clip, x)  # (N, E)
    labels = check_labels(labels, len(features), len(model.class_names)).to(features.device)
    moving = [model.context, *model.meta_net.parameters()]
    with torch.enable_grad():
        model.history = train_context(
            moving, lambda rows: F.cross_entropy(model(features[rows]), labels[rows]), len(labels), config
        )
    return model.requires_grad_(False)
