"""Exercises of lesson 13: prototypes, a draw with a gradient, KL of two Gaussians, the step, the draws' doubt."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adaptation.norm import use_batch_statistics
from .base import Case, Exercise


def draw_latent(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """One draw of w ~ N(mean, std^2), as a function of standard normal noise; all of shape (K, d).

    log_std is the natural logarithm of the deviation sigma (log sigma, not log sigma^2).
    """
    return mean + log_std.exp() * noise  # (K, d)


def gaussian_kl(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians (K, d): summed over the d numbers of a class, averaged over the classes.

    Natural logarithm.
    """
    ratio, gap = std_q / std_p, (mean_q - mean_p) / std_p  # (K, d)
    each = 0.5 * (ratio.square() + gap.square() - 1) - ratio.log()  # (K, d), each at least 0
    return each.sum(dim=1).mean()


def label_step(model: nn.Module, x: Tensor, targets: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step towards S drawn soft labels (S, B, K) of a batch x (B, C, H, W); the logits (B, K) AFTER it.

    The loss is the mean of the S cross-entropies. Labels are given: no gradient goes into them. The modes of the
    model are somebody else's business.
    """
    logits = model(x)  # (B, K)
    loss = torch.stack([F.cross_entropy(logits, target) for target in targets.detach()]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return model(x)


def doubt(draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of S drawn labels (S, B, K): the mean label (B, K), its entropy (B,), and which part is between draws (B,).

    The part between draws is the entropy of the mean label less the mean entropy of the draws (nats).
    """
    mean = draws.mean(dim=0)  # (B, K)
    total = -torch.special.xlogy(mean, mean).sum(dim=-1)  # (B,)
    inside = -torch.special.xlogy(draws, draws).sum(dim=-1).mean(dim=0)  # (S, B) -> (B,)
    return mean, total, total - inside


def _prototypes(features: list, probs: list, floor: float = 1e-3) -> Case:
    values = {"features": features, "probs": probs}
    return Case(lambda: {**{k: torch.tensor(v, dtype=torch.float32) for k, v in values.items()}, "floor": floor})


def _many(batch: int, dim: int, classes: int, floor: float = 1e-3) -> Case:
    def make() -> dict[str, Any]:
        return {
            "features": torch.randn(batch, dim),
            "probs": torch.rand(batch, classes).softmax(1),
            "floor": floor,
        }

    return Case(make)


def prototype_cases() -> list[Case]:
    """Sure labels; half a vote; a class that nobody believes in; a batch of one; many."""
    return [
        _prototypes([[0.0], [2.0], [6.0]], [[1, 0], [1, 0], [0, 1]], 0.0),
        _prototypes([[0.0], [4.0]], [[0.75, 0.25], [0.5, 0.5]], 0.0),
        _prototypes([[1.0, 2.0], [3.0, 6.0]], [[1, 0, 0], [0, 1, 0]], 0.25),
        _prototypes([[1.0, -2.0]], [[0.9, 0.1]]),
        _many(7, 3, 4, 0.01),
    ]


def _draw(mean: list, log_std: list, noise: list) -> Case:
    values = {"mean": mean, "log_std": log_std, "noise": noise}
    return Case(lambda: {name: torch.tensor(v) for name, v in values.items()})


def draw_cases() -> list[Case]:
    """Deviation one; deviation e^2; no noise; many."""
    shapes = ("mean", "log_std", "noise")
    return [
        _draw([[1.0]], [[0.0]], [[0.5]]),
        _draw([[1.0, 0.0]], [[2.0, -1.0]], [[1.0, -2.0]]),
        _draw([[3.0]], [[1.0]], [[0.0]]),
        Case(lambda: {name: torch.randn(3, 4) for name in shapes}),
    ]


def _kl(mean_q: list, std_q: list, mean_p: list, std_p: list) -> Case:
    values = {"mean_q": mean_q, "std_q": std_q, "mean_p": mean_p, "std_p": std_p}
    return Case(lambda: {name: torch.tensor(v) for name, v in values.items()})


def _many_gaussians() -> dict[str, Tensor]:
    shape = (3, 5)
    return {
        "mean_q": torch.randn(shape),
        "std_q": torch.rand(shape) + 0.3,
        "mean_p": torch.randn(shape),
        "std_p": torch.rand(shape) + 0.3,
    }


def kl_cases() -> list[Case]:
    """Equal; moved by one; narrower; both; two classes; many."""
    return [
        _kl([[0.0]], [[1.0]], [[0.0]], [[1.0]]),
        _kl([[1.0]], [[1.0]], [[0.0]], [[1.0]]),
        _kl([[0.0]], [[0.5]], [[0.0]], [[1.0]]),
        _kl([[1.0, 0.0]], [[0.5, 2.0]], [[0.0, 0.0]], [[2.0, 1.0]]),
        _kl([[1.0], [0.0]], [[1.0], [1.0]], [[0.0], [0.0]], [[1.0], [1.0]]),
        Case(_many_gaussians),
    ]


def _small_model(dropout: float) -> nn.Sequential:
    """A network ready for the step: eval mode, BatchNorm on batch statistics."""
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*body, nn.Dropout(dropout), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[6].weight.mul_(6)  # sure predictions, so that a step shows
    use_batch_statistics(model[1])
    return model


def _step(draws: int, lr: float = 0.5, batch: int = 4, dropout: float = 0.0, stale: bool = False) -> Case:
    def make() -> dict[str, Any]:
        model = _small_model(dropout)
        moving = [p for name, p in model.named_parameters() if not name.startswith("6")]
        for parameter in model.parameters() if stale else ():
            parameter.grad = torch.ones_like(parameter)
        targets = (3 * torch.randn(draws, batch, 3)).softmax(dim=2).requires_grad_()
        optimizer = torch.optim.SGD(moving, lr=lr)
        return {"model": model, "x": torch.randn(batch, 1, 5, 5), "targets": targets, "optimizer": optimizer}

    left = "an earlier computation left its gradients in the parameters" if stale else ""
    return Case(make, keep_input=False, note=left)


def logits_and_weights(logits: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What was returned, the model afterwards, and whether a gradient went into the labels."""
    into_labels = arguments["targets"].grad
    return {
        "logits": logits,
        "model after the step": dict(arguments["model"].state_dict()),
        "gradient that reached the labels": 0.0 if into_labels is None else float(into_labels.abs().sum()),
    }


def step_cases() -> list[Case]:
    """One draw; three draws; gradients left from before; dropout in the model."""
    return [_step(1), _step(3), _step(2, stale=True), _step(2, batch=8, dropout=0.5)]


def _labels(draws: list) -> Case:
    return Case(lambda: {"draws": torch.tensor(draws)})


def doubt_cases() -> list[Case]:
    """Draws that agree; that differ; sure draws that contradict each other; two patients; many."""
    return [
        _labels([[[0.5, 0.5]], [[0.5, 0.5]]]),
        _labels([[[0.75, 0.25]], [[0.25, 0.75]]]),
        _labels([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]),
        _labels([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.2, 0.8]], [[0.8, 0.2], [0.5, 0.5]]]),
        Case(lambda: {"draws": torch.randn(5, 4, 3).softmax(dim=2)}),
    ]


EXERCISES = (
    Exercise(
        id="neighbors.prototypes",
        lesson="13_neighbor_labels",
        title="class prototypes of a batch without labels",
        difficulty=1,
        minutes=8,
        implementation="seminar_utils.models.neighbor_labels:class_prototypes",
        cases=prototype_cases,
        gradient_to=("features",),
        hints=(
            "A weighted mean: every image counts for class k as much as it is believed to be of class k. By what "
            "is a weighted mean divided?",
            "The floor is added to every probability, before weighing AND before dividing: a class that nobody "
            "believes in then gets the mean of the whole batch.",
            "weight = probs + floor  # (B, K); (weight.T @ features) / weight.sum(dim=0)[:, None]",
        ),
    ),
    Exercise(
        id="neighbors.draw",
        lesson="13_neighbor_labels",
        title="a draw that lets gradients through",
        difficulty=1,
        minutes=5,
        implementation=f"{__name__}:draw_latent",
        cases=draw_cases,
        gradient_to=("mean", "log_std"),
        hints=(
            "A normal variable is its mean plus its deviation times a standard normal one.",
            "The network gives the LOGARITHM of the deviation, so that any number is allowed: which function "
            "brings it back? A draw by torch.normal would have no gradient to mean and deviation.",
            "mean + log_std.exp() * noise",
        ),
    ),
    Exercise(
        id="neighbors.kl",
        lesson="13_neighbor_labels",
        title="KL divergence of two Gaussians",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:gaussian_kl",
        cases=kl_cases,
        gradient_to=("mean_q", "std_q", "mean_p", "std_p"),
        hints=(
            "For one number: log(std_p / std_q) + (std_q^2 + (mean_q - mean_p)^2) / (2 std_p^2) - 1/2. It is zero "
            "only when both are equal; try it on q = p.",
            "It is not symmetric: which of the two deviations divides? Independent numbers add up (over d); the "
            "classes are averaged (over K).",
            "ratio = std_q / std_p; gap = (mean_q - mean_p) / std_p; "
            "(0.5 * (ratio**2 + gap**2 - 1) - ratio.log()).sum(dim=1).mean()",
        ),
    ),
    Exercise(
        id="neighbors.step",
        lesson="13_neighbor_labels",
        title="one step towards the drawn labels",
        difficulty=2,
        minutes=12,
        implementation=f"{__name__}:label_step",
        cases=step_cases,
        observe=logits_and_weights,
        hints=(
            "Forward, loss, backward, update, and then ONE MORE forward: unlike Tent, this method answers after "
            "its step (the model given the labels is what predicts).",
            "F.cross_entropy(logits, target) takes soft targets (B, K). There are S of them for one batch: "
            "average the losses. The labels are a given: detach them. Old gradients have to go first.",
            "logits = model(x); loss = torch.stack([F.cross_entropy(logits, t) for t in targets.detach()]).mean()"
            "; optimizer.zero_grad(); loss.backward(); optimizer.step(); with torch.no_grad(): return model(x)",
        ),
    ),
    Exercise(
        id="neighbors.doubt",
        lesson="13_neighbor_labels",
        title="what the draws doubt",
        difficulty=3,
        minutes=12,
        implementation=f"{__name__}:doubt",
        cases=doubt_cases,
        hints=(
            "Two kinds of doubt: every draw may be unsure in itself, or sure draws may contradict each other. The "
            "entropy of the MEAN label holds both, the mean of the ENTROPIES only the first.",
            "Average over the draws (the first axis), sum over the classes (the last). A sure draw has zeros, and "
            "0 * log 0 is NaN unless you take care: torch.special.xlogy(p, p) does.",
            "mean = draws.mean(0); total = -torch.special.xlogy(mean, mean).sum(-1); "
            "inside = -torch.special.xlogy(draws, draws).sum(-1).mean(0); return mean, total, total - inside",
        ),
    ),
)
