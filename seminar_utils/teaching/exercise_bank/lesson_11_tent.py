"""Exercises of lesson 11: batch statistics, entropy, also of pixels, a step of Tent, an alarm for its collapse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...adaptation.norm import use_batch_statistics
from ...adaptation.tent import class_rows, softmax_entropy
from ...evaluation.metrics import predicted_class_entropy
from .base import Case, Exercise, WrongAnswer


def tent_step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step of Tent on a batch x (B, C, H, W); returns the logits (B, K) from BEFORE the update.

    Only what the optimiser holds may move; the modes of the model are somebody else's business.
    """
    logits = model(x)  # (B, K)
    loss = softmax_entropy(logits).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return logits.detach()


def pixel_entropy(logits: Tensor) -> Tensor:
    """Entropy of yes or no at each pixel: logits (B, 1, H, W) to (B, H, W), in nats, finite for any logit.

    p = sigmoid(z) answers "inside", 1 - p "outside": H = -p log p - (1 - p) log(1 - p).
    """
    return softmax_entropy(class_rows(logits)).view(len(logits), *logits.shape[2:])  # (B, H, W)


def collapse_alarm(predictions: np.ndarray, num_classes: int, window: int, threshold: float) -> list[bool]:
    """One alarm per batch: True when few classes are predicted any more. predictions: integers (T, B).

    At batch t, pool the predictions of the last `window` batches up to and including t (fewer at the
    start), and take the entropy of the histogram of classes, in units of ln(num_classes): 1 = all
    equally often, 0 = only one. The alarm is True when that entropy is below `threshold`.
    """
    recent = [predictions[max(0, t - window + 1) : t + 1] for t in range(len(predictions))]
    return [predicted_class_entropy(pooled.ravel(), num_classes) < threshold for pooled in recent]


def batch_statistics_cases() -> list[Case]:
    """Four numbers of one channel; channels that differ; a batch of one; a batch with a large mean."""
    four = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(2, 1, 1, 2)
    return [
        Case(lambda: {"x": four.clone()}),
        Case(lambda: {"x": torch.randn(2, 3, 2, 2) * torch.arange(1.0, 4).view(1, -1, 1, 1)}),
        Case(lambda: {"x": torch.randn(1, 2, 2, 3)}),
        Case(lambda: {"x": torch.randn(5, 4, 3, 4) + 20}),
    ]


def entropy_and_gradient(entropy: Any, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The entropy and the gradient Tent will follow: an answer cut off from the logits teaches nothing."""
    if not isinstance(entropy, Tensor):
        raise WrongAnswer(f"expected a tensor of shape (B,), got {type(entropy).__name__}")
    if not entropy.requires_grad:
        raise WrongAnswer("no gradient flows back to the logits: stay in torch, without detach or no_grad")
    (gradient,) = torch.autograd.grad(entropy.sum(), arguments["logits"])
    return {"entropy": entropy, "gradient of its sum": gradient}


def entropy_cases() -> list[Case]:
    """A coin, three classes, sure and very sure logits, a batch."""
    rows = [
        [[0.0, 0.0]],
        [[1.0, 0.0, -1.0]],
        [[0.0, 4.0], [3.0, 3.0]],
        [[1000.0, 0.0]],
        [[-1000.0, 0.0, 1000.0]],
    ]
    by_hand = [Case(lambda row=row: {"logits": torch.tensor(row, requires_grad=True)}) for row in rows]
    return [*by_hand, Case(lambda: {"logits": (3 * torch.randn(8, 6)).requires_grad_()})]


def pixel_cases() -> list[Case]:
    """A pixel that knows nothing, one on each side, very sure ones, a map."""
    rows = [[0.0], [1.0, -1.0], [3.0, -0.5], [1000.0, -1000.0]]
    by_hand = [
        Case(lambda row=row: {"logits": torch.tensor(row).view(1, 1, 1, -1).requires_grad_()}) for row in rows
    ]
    return [*by_hand, Case(lambda: {"logits": (3 * torch.randn(2, 1, 3, 4)).requires_grad_()})]


def _small_model(dropout: float) -> nn.Sequential:
    """A network ready for Tent: eval mode, BatchNorm on batch statistics; all parameters have gradients."""
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*body, nn.Dropout(dropout), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[6].weight.mul_(6)  # sure predictions, so that a step shows
    use_batch_statistics(model[1])
    return model


def step_case(optimizer: str, lr: float, batch: int = 4, dropout: float = 0.0, stale: bool = False) -> Case:
    """A small model, a batch and an optimiser over its BatchNorm; stale: old gradients lie in the parameters."""

    def make() -> dict[str, Any]:
        model = _small_model(dropout)
        moving = list(model[1].parameters())
        if stale:  # gradients that an earlier computation left behind
            for parameter in moving:
                parameter.grad = torch.ones_like(parameter)
        optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        x = torch.randn(batch, 1, 5, 5)
        return {"model": model, "x": x, "optimizer": optimizers[optimizer](moving, lr=lr)}

    left = "an earlier computation left its gradients in the parameters" if stale else ""
    return Case(make, keep_input=False, note=left)


def logits_and_weights(logits: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What was returned, and the model afterwards."""
    return {"logits": logits, "model after the step": dict(arguments["model"].state_dict())}


def step_cases() -> list[Case]:
    """Plain SGD, gradients left from before, dropout in the model, Adam."""
    return [
        step_case("sgd", 0.5),
        step_case("sgd", 0.5, stale=True),
        step_case("sgd", 0.5, batch=8, dropout=0.5),
        step_case("adam", 0.05, dropout=0.5),
    ]


def _stream(batches: list[list[int]], num_classes: int, window: int, threshold: float) -> Case:
    values = {"num_classes": num_classes, "window": window, "threshold": threshold}
    return Case(lambda: {"predictions": np.array(batches), **values})


def _slow_collapse() -> dict[str, Any]:
    """Sixty batches of six classes, in which class 2 takes over more and more."""
    rng = np.random.default_rng(0)
    healthy = rng.integers(0, 6, size=(60, 16))
    taken = rng.random((60, 16)) < np.linspace(0, 1, 60)[:, None]
    return {"predictions": np.where(taken, 2, healthy), "num_classes": 6, "window": 5, "threshold": 0.5}


def alarm_cases() -> list[Case]:
    """Silent on balance, loud on one class, patience for sorted batches, late and slow collapse."""
    return [
        _stream([[0, 1], [1, 0]], 2, 1, 0.5),
        _stream([[0, 0], [0, 0]], 2, 1, 0.5),
        _stream([[0, 1, 0, 1]], 6, 1, 0.5),
        _stream([[0, 0], [1, 1], [0, 0], [1, 1]], 2, 2, 0.5),
        _stream([[0, 1]] * 6 + [[1, 1]] * 3, 2, 2, 0.5),
        Case(_slow_collapse),
    ]


EXERCISES = (
    Exercise(
        id="norm.batch_statistics",
        lesson="11_tent",
        title="what BatchNorm measures",
        difficulty=1,
        minutes=5,
        implementation="seminar_utils.adaptation.norm:batch_statistics",
        cases=batch_statistics_cases,
        hints=(
            "One number per channel: everything but axis 1 of (B, C, H, W) is averaged away, at once.",
            "The variance around the mean of the whole batch, not the average of the images' variances; "
            "divided by n, not by n - 1, for normalisation.",
            "x.mean(dim=(0, 2, 3)) and x.var(dim=(0, 2, 3), unbiased=False)",
        ),
    ),
    Exercise(
        id="tent.entropy",
        lesson="11_tent",
        title="the entropy of a prediction",
        difficulty=1,
        minutes=5,
        implementation="seminar_utils.adaptation.tent:softmax_entropy",
        cases=entropy_cases,
        observe=entropy_and_gradient,
        hints=(
            "H = -sum_k p_k log p_k, with the natural logarithm, one number per row. "
            "A fair coin has H = log 2 = 0.693.",
            "For sure predictions p underflows to 0, and log 0 is -inf: is there a function that gives "
            "log p straight from the logits?",
            "log_p = logits.log_softmax(dim=1); then -(log_p.exp() * log_p).sum(dim=1)",
        ),
    ),
    Exercise(
        id="tent.pixel_entropy",
        lesson="11_tent",
        title="the entropy of a pixel",
        difficulty=2,
        minutes=5,
        implementation=f"{__name__}:pixel_entropy",
        cases=pixel_cases,
        observe=entropy_and_gradient,
        hints=(
            "Two answers, two terms: inside with p = sigmoid(z), outside with 1 - p. The softmax over a single "
            "channel is always 1. A pixel at z = 0 has H = log 2 = 0.693.",
            "For sure pixels p or 1 - p underflows to 0: which function gives log p straight from z? And what is "
            "1 - sigmoid(z) in terms of -z?",
            "z = logits[:, 0]; -(z.sigmoid() * F.logsigmoid(z) + (-z).sigmoid() * F.logsigmoid(-z))",
        ),
    ),
    Exercise(
        id="tent.step",
        lesson="11_tent",
        title="one step of Tent",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:tent_step",
        cases=step_cases,
        observe=logits_and_weights,
        hints=(
            "Forward, loss, backward, update: the loop you know from training, without a label. "
            "Which logits does the paper return: those before or after the update?",
            "The optimiser knows what may move: do not touch model.train(), model.eval() or other parameters. "
            "The loss is the MEAN entropy of the batch; old gradients have to go first.",
            "logits = model(x); loss = softmax_entropy(logits).mean(); optimizer.zero_grad(); "
            "loss.backward(); optimizer.step(); return logits",
        ),
    ),
    Exercise(
        id="tent.alarm",
        lesson="11_tent",
        title="an alarm for collapse, without labels",
        difficulty=3,
        minutes=15,
        implementation=f"{__name__}:collapse_alarm",
        cases=alarm_cases,
        hints=(
            "A collapsing model predicts fewer and fewer classes. One sorted batch is no collapse: pool the "
            "predictions of the window first, then take ONE entropy of their histogram.",
            "np.bincount(pooled, minlength=num_classes) gives the histogram; leave out empty classes "
            "(0 * log 0 is NaN, and NaN < threshold is False: a silent alarm); divide by log(num_classes).",
            "For t in range(T): pooled = predictions[max(0, t - window + 1) : t + 1].ravel(); "
            "p = shares above zero; alarm = -(p * np.log(p)).sum() / np.log(num_classes) < threshold",
        ),
    ),
)
