"""Exercises of lesson 14: a learnt context, the losses of CoOp, DAPL and TPT, Tip-Adapter's vote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adaptation.dapl import pseudo_labels
from ...adaptation.memo import marginal_entropy
from ...adaptation.tpt import confident_views
from .base import Case, Exercise


def build_prompt(start: Tensor, context: Tensor, name: Tensor, rest: Tensor, position: str) -> Tensor:
    """The word vectors of a prompt (1 + M + N + R, D): start (1, D), context (M, D), name (N, D), rest (R, D).

    position: "end" puts the name behind the context, "front" before it, "middle" behind its first M // 2 vectors.
    """
    before = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    return torch.cat([start, context[:before], name, context[before:], rest])


def coop_loss(image: Tensor, text: Tensor, labels: Tensor, log_scale: Tensor) -> Tensor:
    """Mean cross-entropy of exp(log_scale) * cosine: image (B, E), text (K, E), labels (B,) -> ()."""
    logits = log_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (B, K)
    return F.cross_entropy(logits, labels)


def target_loss(target: Tensor, naive: Tensor, threshold: float) -> Tensor:
    """DAPL on unlabelled images: cross-entropy of logits `target` (B, K) with the labels of `naive` (B, K) -> ().

    Only images of which the fixed zero-shot logits `naive` give some class at least `threshold` count; the mean is
    over these. Nothing above the threshold: 0, not 0 / 0.
    """
    labels, _, mask = pseudo_labels(naive, threshold)  # (B,) each
    losses = F.cross_entropy(target, labels, reduction="none")  # (B,)
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def view_loss(logits: Tensor, share: float) -> Tensor:
    """TPT: the entropy of the mean answer of the int(V * share) surest views: logits (V, K) -> ().

    Finite for logits of 200, too: log_softmax and logsumexp, not the log of a softmax.
    """
    return marginal_entropy(logits[confident_views(logits, share)])


def tip_vote(features: Tensor, keys: Tensor, labels: Tensor, num_classes: int, beta: float) -> Tensor:
    """The vote of labelled images: features (B, E), keys (N, E), of length 1, labels (N,) -> (B, num_classes)."""
    affinity = torch.exp(-beta * (1 - features @ keys.T))  # (B, N)
    return affinity @ F.one_hot(labels, num_classes).to(affinity)  # (B, K)


def _prompt(position: str, M: int, N: int, R: int, D: int = 2) -> Case:
    def make() -> dict[str, Any]:
        parts = {"start": 1, "context": M, "name": N, "rest": R}
        return {key: torch.randn(count, D) for key, count in parts.items()} | {"position": position}

    return Case(make)


def prompt_cases() -> list[Case]:
    """Each position; an odd context, whose first half is the shorter one; one vector; a name of several words."""
    plain = [_prompt(position, 2, 1, 1) for position in ("end", "front", "middle")]
    return [*plain, _prompt("middle", 3, 2, 2, 4), _prompt("middle", 1, 2, 1), _prompt("front", 5, 3, 2, 4)]


def _coop(B: int, K: int, E: int, log_scale: float) -> Case:
    def make() -> dict[str, Any]:
        features = {"image": 2 * torch.randn(B, E), "text": 3 * torch.randn(K, E)}
        return {**features, "labels": torch.arange(B) % K, "log_scale": torch.tensor(log_scale)}

    return Case(make)


def coop_cases() -> list[Case]:
    """Two images, two classes, factor 1; more of both; a factor as CLIP's; more classes than images."""
    return [_coop(2, 2, 2, 0.0), _coop(4, 3, 5, 1.0), _coop(6, 3, 8, 3.4), _coop(2, 5, 4, 2.0)]


def _target(make_logits: Callable[[], tuple[Tensor, Tensor]], threshold: float, learns: bool) -> list[Case]:
    """The case, and where something is kept once more for its gradient to the target's logits."""

    def make(gradient: bool = False) -> dict[str, Any]:
        target, naive = make_logits()
        return {"target": target.requires_grad_(gradient), "naive": naive, "threshold": threshold}

    told = {"note": "a gradient must reach target", "gradient_to": ("target",)}
    return [Case(make), *([Case(lambda: make(True), **told)] if learns else [])]


def target_cases() -> list[Case]:
    """All kept; one of two; a confidence that equals the threshold; none; a random batch of four classes."""
    sure, unsure = [4.0, 0.0], [0.2, 0.0]
    rows = torch.tensor
    return [
        *_target(lambda: (rows([[1.0, 0.0], [0.0, 0.5]]), rows([sure, sure])), 0.5, True),
        *_target(lambda: (rows([[1.0, 0.0], [2.0, 0.5]]), rows([sure[::-1], unsure])), 0.9, True),
        *_target(lambda: (rows([[1.0, 0.0], [0.0, 3.0]]), rows([[0.0, 0.0], sure])), 0.5, True),
        *_target(lambda: (rows([[1.0, 0.0], [0.0, 3.0]]), rows([unsure, unsure])), 0.9, False),
        *_target(lambda: (torch.randn(12, 4), 2 * torch.randn(12, 4)), 0.6, True),
    ]


def view_cases() -> list[Case]:
    """Two views of which one is sure; a highest logit that is not the lowest entropy; more views; sure ones."""
    pair = [[0.1, 0.0], [3.0, 0.0]]
    trap = [[2.0, 1.9, -9.0], [1.7, 0.0, 0.0], [0.0, 0.2, 0.1], [0.0, 0.1, 0.3]]  # .52 and .73 for the first class
    return [
        Case(lambda: {"logits": torch.tensor(pair), "share": 0.5}),
        Case(lambda: {"logits": torch.tensor(trap), "share": 0.25}),
        Case(lambda: {"logits": 2 * torch.randn(10, 3), "share": 0.25}),
        Case(lambda: {"logits": 2 * torch.randn(64, 4), "share": 0.1}),
        Case(
            lambda: {"logits": torch.tensor([[200.0, 0.0, 0.0], [0.0, 190.0, 0.0], [1.0, 0.0, 0.0]]), "share": 0.7}
        ),
    ]


def _vote(B: int, labels: list[int], E: int, num_classes: int, beta: float) -> Case:
    def make() -> dict[str, Any]:
        unit = {key: F.normalize(torch.randn(n, E), dim=1) for key, n in (("features", B), ("keys", len(labels)))}
        return {**unit, "labels": torch.tensor(labels), "num_classes": num_classes, "beta": beta}

    return Case(make)


def vote_cases() -> list[Case]:
    """One image and one memory; two of the same class; a class that nobody remembers; the paper's sharpness."""
    return [
        _vote(1, [0], 2, 2, 1.0),
        _vote(2, [0, 0, 1], 3, 2, 1.0),
        _vote(2, [0, 1, 1], 3, 3, 2.0),
        _vote(5, [3, 0, 1, 0, 2, 3, 3, 1], 6, 4, 5.5),
    ]


EXERCISES = (
    Exercise(
        id="prompts.build",
        lesson="14_prompt_adaptation",
        title="a prompt with a learnt context",
        difficulty=1,
        minutes=6,
        implementation=f"{__name__}:build_prompt",
        cases=prompt_cases,
        gradient_to=("context",),
        hints=(
            "Nothing but the order changes: start token first, rest last, the context is cut around the name.",
            "How many context vectors stand before the name? 'end': all, 'front': none, 'middle': M // 2.",
            'before = {"end": M, "middle": M // 2, "front": 0}[position]; '
            "torch.cat([start, context[:before], name, context[before:], rest])",
        ),
    ),
    Exercise(
        id="prompts.coop_loss",
        lesson="14_prompt_adaptation",
        title="what CoOp minimises",
        difficulty=1,
        minutes=6,
        implementation=f"{__name__}:coop_loss",
        cases=coop_cases,
        gradient_to=("text",),
        hints=(
            "Zero-shot logits as in lesson 04, then the loss of any classifier with labels.",
            "Both sides are made of length 1, each row by itself; the model keeps the LOGARITHM of the factor.",
            "F.cross_entropy(log_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T, labels)",
        ),
    ),
    Exercise(
        id="prompts.target_loss",
        lesson="14_prompt_adaptation",
        title="DAPL's loss without labels",
        difficulty=2,
        minutes=12,
        implementation=f"{__name__}:target_loss",
        cases=target_cases,
        hints=(
            "Two classifiers: the fixed one says what is right and how sure it is, the learnt one learns it.",
            "The mean is over the images that are kept, not over the batch; a probability EQUAL to the threshold "
            "is kept; without any, 0 / 0 must not happen.",
            "p, y = naive.softmax(1).max(1); mask = p >= threshold; loss = F.cross_entropy(target, y, "
            'reduction="none"); (loss * mask).sum() / mask.sum().clamp(min=1)',
        ),
    ),
    Exercise(
        id="prompts.view_loss",
        lesson="14_prompt_adaptation",
        title="TPT's loss on the views of one image",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:view_loss",
        cases=view_cases,
        gradient_to=("logits",),
        hints=(
            "First choose: the int(V * share) views of LOWEST entropy. Then one number for all of them together.",
            "The entropy of the mean PROBABILITY, not the mean of the entropies: low only if the views agree. "
            "For very sure views a probability underflows and its logarithm is -inf.",
            "logp = logits[chosen].log_softmax(1); mean = logp.logsumexp(0) - math.log(len(chosen)); "
            "-(mean.exp() * mean).sum()",
        ),
    ),
    Exercise(
        id="prompts.tip_vote",
        lesson="14_prompt_adaptation",
        title="labelled images that vote",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:tip_vote",
        cases=vote_cases,
        hints=(
            "Each labelled image gives its class a weight that falls with the distance; a class adds its weights.",
            "The weight is exp(-beta * (1 - cosine)): 1 for the same image. Labels as one-hot rows (N, K) make "
            "the sum over a class a matrix product.",
            "torch.exp(-beta * (1 - features @ keys.T)) @ F.one_hot(labels, num_classes).float()",
        ),
    ),
)
