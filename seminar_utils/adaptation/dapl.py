"""DAPL: one prompt for the classes, one part of it for each domain.

Ge et al., Domain Adaptation via Prompt Learning, TNNLS 2023 (arXiv 2202.06687). Offline unsupervised domain
adaptation, not test-time: labelled source images and unlabelled target images are needed at once. Prompt:
[v1 .. vM1][d1 .. dM2][CLASS], a [DOMAIN] image. The v are shared by the domains, the d belong to one.
The target's pseudo-labels are the ZERO-SHOT answers and stay fixed: their errors are learnt as well.

The official code and the paper differ: the code compares the K classes within a domain, the paper all 2K pairs of
domain and class. The code chooses its checkpoint by the target's TEST labels; here the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.zero_shot import Tokenizer, zero_shot_classifier
from ..runtime import SeminarError, unknown_name
from .coop import PromptConfig, check_labels, train_context
from .prompt_checks import Clip, check_names, check_text_tower
from .prompts import Blanks, frozen_copy, image_features, random_context

SOFTMAX = ("code", "paper")  # over the K classes of a domain; over all pairs of domain and class
DEFAULTS = PromptConfig(lr=3e-3, epochs=25, batch_size=32)


class DaplLoss(NamedTuple):
    """The loss and its parts; `kept` target images had a pseudo-label; pseudo (B,), confidence (B,), mask (B,)."""

    loss: Tensor
    source: Tensor
    target: Tensor
    kept: int
    pseudo: Tensor
    confidence: Tensor
    mask: Tensor


def pseudo_labels(
    logits: Tensor, threshold: float = 0.5, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Zero-shot logits (B, K) -> labels (B,), confidences (B,), and which reach the threshold (B,), >= counts."""
    confidence, labels = (logits / temperature).softmax(dim=1).max(dim=1)
    return labels, confidence, confidence >= threshold


def dapl_loss(
    source_logits: Tensor,
    labels: Tensor,
    target_logits: Tensor,
    num_classes: int,
    *,
    domain: Tensor | None = None,
    threshold: float = 0.5,
    temperature: float = 1.0,
    weight: float = 1.0,
    softmax: str = "code",
    guard: bool = True,
) -> DaplLoss:
    """Cross-entropy on the source + weight * cross-entropy on the confident part of the target.

    Args: logits (B, (D + 1) K), domain-major: the K classes of each source domain, then of the target, last the K
    fixed zero-shot prompts; domain (B,): of each source image, 0 if left out; temperature: of the pseudo-labels;
    softmax: see `SOFTMAX`. When no target image reaches the threshold the official code has 0 / 0 = NaN
    (`guard=False`); here the target's loss is 0 and `kept` says so.
    """
    if softmax not in SOFTMAX:
        raise unknown_name("softmax", softmax, SOFTMAX)
    K, target = num_classes, target_logits.shape[1] // num_classes - 2  # the number of the target domain
    domain = torch.zeros_like(labels) if domain is None else domain
    pseudo, confidence, mask = pseudo_labels(target_logits[:, -K:].detach(), threshold, temperature)
    on_source = domain_cross_entropy(source_logits[:, :-K], domain, labels, K, softmax).mean()
    on_target = domain_cross_entropy(target_logits[:, :-K], torch.full_like(pseudo, target), pseudo, K, softmax)
    kept = mask.sum()
    on_target = (on_target * mask).sum() / (kept.clamp(min=1) if guard else kept)
    return DaplLoss(on_source + weight * on_target, on_source, on_target, int(kept), pseudo, confidence, mask)


def domain_cross_entropy(logits: Tensor, domain: Tensor, labels: Tensor, num_classes: int, softmax: str) -> Tensor:
    """-log p(class | domain) ("code") or -log p(domain, class) ("paper") of logits (B, D K), each image (B,)."""
    if softmax == "paper":
        return F.cross_entropy(logits, domain * num_classes + labels, reduction="none")
    by_domain = logits.unflatten(1, (-1, num_classes))  # (B, D, K)
    return F.cross_entropy(by_domain[torch.arange(len(labels)), domain], labels, reduction="none")


def domain_contexts(context: Tensor, domain_context: Tensor, num_classes: int) -> Tensor:
    """Shared (M1, D) or (K, M1, D), of the domains (N, M2, D) -> one a prompt (N K, M1 + M2, D), domain-major."""
    shared = context.expand(num_classes, -1, -1).repeat(len(domain_context), 1, 1)  # (N K, M1, D)
    return torch.cat([shared, domain_context.repeat_interleave(num_classes, dim=0)], dim=1)


class DomainPrompts(nn.Module):
    """Prompts for all classes in all domains; all that should move is `context` and `domain_context`.

    Args: domains: names, the sources' first and the target's LAST; n_ctx, n_dmx: M1 and M2; naive: the template
    of the fixed zero-shot prompts; ending: what follows the class name, {} is the domain. See `PromptedCLIP`.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        domains: Sequence[str],
        n_ctx: int = 16,
        n_dmx: int = 16,
        *,
        naive: str = "a photo of a {}.",
        ending: str = ", a {} image.",
        class_specific: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        check_text_tower(clip)
        names, self.domains, K = check_names(class_names), tuple(check_names(domains)), len(class_names)
        if len(self.domains) < 2 or min(n_ctx, n_dmx) < 1:
            raise SeminarError(
                "DAPL needs a source and a target domain, and at least one vector for the classes and one for the "
                f"domain, got domains {self.domains}, n_ctx={n_ctx}, n_dmx={n_dmx}"
            )
        self.clip, self.class_names, self.num_features = clip, tuple(class_names), clip.num_features
        endings = [ending.replace("{}", domain) for domain in self.domains for _ in names]
        self.blanks = Blanks(clip, tokenizer, names * len(self.domains), n_ctx + n_dmx, endings, distinct=K)
        shape = (K, n_ctx, self.blanks.dim)[0 if class_specific else 1 :]
        context = random_context(*shape, like=self.blanks.vectors, seed=seed)
        other = random_context(len(self.domains), n_dmx, self.blanks.dim, like=context, seed=seed + 1_000_003)
        self.context, self.domain_context = nn.Parameter(context), nn.Parameter(other)
        self.register_buffer("naive", zero_shot_classifier(clip, tokenizer, names, [naive]))  # (K, E)

    def text_features(self) -> Tensor:
        """Features of length 1 of all prompts (N K, E), domain-major."""
        context = domain_contexts(self.context, self.domain_context, len(self.class_names))
        return self.blanks(self.clip, context)

    def logits(self, features: Tensor) -> Tensor:
        """Image features (B, E) -> logits (B, (N + 1) K): each domain's prompts, then the zero-shot ones."""
        classes = torch.cat([self.text_features(), self.naive])  # ((N + 1) K, E)
        return self.clip.logit_scale.exp() * features @ classes.T

    def number(self, domain: str) -> int:
        """The place of a domain; SeminarError for one that was never seen in training."""
        if domain not in self.domains:
            raise unknown_name("domain (never seen in training)", domain, self.domains)
        return self.domains.index(domain)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), or their features (B, E) -> features of length 1 (B, E)."""
        return F.normalize(x, dim=-1) if x.ndim == 2 else self.clip.encode_image(x, normalize=True)

    def forward(self, x: Tensor, domain: str | None = None) -> Tensor:
        """Images (B, C, H, W) or features (B, E) -> logits (B, K) by the prompts of a domain (the target's)."""
        number = len(self.domains) - 1 if domain is None else self.number(domain)
        by_domain = self.logits(self.embed(x)).unflatten(1, (-1, len(self.class_names)))  # (B, N + 1, K)
        return by_domain[:, number]

    @torch.no_grad()
    def zero_shot(self, x: Tensor) -> Tensor:
        """The fixed zero-shot logits (B, K) that the pseudo-labels come from."""
        return self.clip.logit_scale.exp() * self.embed(x) @ self.naive.T


def endless_batches(count: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers 0..count-1 in shuffled batches, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(batch_size)


def fit_dapl(
    clip: Clip,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    x: Tensor,
    labels: Tensor | np.ndarray,
    target_x: Tensor,
    config: PromptConfig = DEFAULTS,
    *,
    domains: Sequence[str] | np.ndarray | None = None,
    target: str = "target",
    threshold: float = 0.5,
    temperature: float = 1.0,
    weight: float = 1.0,
    softmax: str = "code",
    **options,
) -> DomainPrompts:
    """Learn from labelled source images and unlabelled target images; no label of the target comes in.

    Args: x (N, C, H, W) or features (N, E), labels (N,); target_x: the same without labels; domains: the source
    domain of each image (N,), "source" for all if left out; target: the name of the target domain; options: of
    `DomainPrompts`. Returns the prompts, with `history` (the loss of each epoch), `kept` (the share of target
    images with a pseudo-label) and `steps_without_target`, how often a batch held none.
    """
    domains = np.full(len(x), "source") if domains is None else np.asarray(domains).astype(str)
    if domains.shape != (len(x),) or target in set(domains):
        raise SeminarError(f"one source domain an image is needed, none of them {target!r}, got {domains.shape}")
    known, number = np.unique(domains, return_inverse=True)
    model = DomainPrompts(
        frozen_copy(clip), tokenizer, class_names, [*known.tolist(), target], seed=config.seed, **options
    )
    source, unlabelled = image_features(model.clip, x), image_features(model.clip, target_x)  # (N, E), (M, E)
    labels = check_labels(labels, len(source), len(model.class_names)).to(source.device)
    number, target_rows = (
        torch.as_tensor(number).to(source.device),
        endless_batches(len(unlabelled), config.batch_size, config.seed + 1),
    )
    model.kept = float(pseudo_labels(model.zero_shot(unlabelled), threshold, temperature)[2].float().mean())
    model.steps_without_target = 0
    settings = {"threshold": threshold, "temperature": temperature, "weight": weight, "softmax": softmax}

    def loss_of(rows: Tensor) -> Tensor:
        both = model.logits(torch.cat([source[rows], unlabelled[next(target_rows)]]))  # (B + B', (N + 1) K)
        here, there = both[: len(rows)], both[len(rows) :]
        found = dapl_loss(here, labels[rows], there, len(model.class_names), domain=number[rows], **settings)
        model.steps_without_target += found.kept == 0
        return found.loss

    with torch.enable_grad():
        model.history = train_context([model.context, model.domain_context], loss_of, len(labels), config)
    return model.requires_grad_(False)
