"""Classes named in words: CLIP as a classifier that was never trained as one (arXiv 2103.00020, section 3.1).

Every class is put into several sentences, and the class is the mean of their features ("prompt ensembling").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError
from .biomedclip import BiomedCLIP
from .clip import CLIP

Tokenizer = Callable[[Sequence[str]], Tensor]


@torch.no_grad()
def zero_shot_classifier(
    model: CLIP | BiomedCLIP, tokenizer: Tokenizer, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """One direction per class (K, embed_dim): normalise each prompt's feature, average, normalise again.

    Args: class_names: what to put in place of `{}` in each of the templates, "a photo of a {}".
    Raises SeminarError when there is no class or no template, or a template has no place for the name.
    """
    if isinstance(class_names, str) or not len(class_names):
        raise SeminarError(f"expected a list of at least one class name, got {class_names!r}")
    if isinstance(templates, str) or not len(templates):
        raise SeminarError(f"expected a list of at least one prompt, got {templates!r}")
    for template in templates:
        if "{}" not in template:
            raise SeminarError(f"a prompt needs {{}} where the class name goes, got {template!r}")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    was_training, device = model.training, model.logit_scale.device
    features = model.eval().encode_text(tokenizer(prompts).to(device), normalize=True)  # (K * T, embed_dim)
    model.train(was_training)
    return F.normalize(features.unflatten(0, (len(class_names), -1)).mean(dim=1), dim=-1)  # (K, embed_dim)


class ZeroShotModel(nn.Module):
    """A CLIP and its named classes as an ordinary classifier: images to logits, for every method of the course."""

    def __init__(self, model: CLIP | BiomedCLIP, classifier: Tensor):
        super().__init__()
        self.clip, self.num_features = model, model.num_features
        self.register_buffer("classifier", classifier)  # (K, embed_dim)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features of length 1 (B, embed_dim)."""
        return self.clip.encode_image(x, normalize=True)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, K), exp(logit_scale) * cos(image, class)."""
        return self.clip.logit_scale.exp() * self.embed(x) @ self.classifier.T
