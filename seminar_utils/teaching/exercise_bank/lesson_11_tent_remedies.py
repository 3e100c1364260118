"""Exercises of lesson 11, part 7: on whom EATA learns, and the two steps of SAR."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adaptation.sar import mean_of
from ...adaptation.tent import softmax_entropy
from .base import Case, Exercise, WrongAnswer
from .lesson_11_tent import logits_and_weights, step_case


def eata_weights(logits: Tensor, average: Tensor | None, e_margin: float, d_margin: float) -> Tensor:
    """How much EATA learns from each sample: logits (B, K) to weights (B,), 0 for those it leaves out.

    Reliable: entropy H < e_margin. Not redundant: |cosine| of the probabilities to `average` (K,), the mean of
    earlier predictions, < d_margin; before the first batch `average` is None and nobody is redundant. Who stays
    weighs exp(e_margin - H). The weights are numbers, no path for a gradient (EATA, section 3.2).
    """
    entropy = softmax_entropy(logits.detach())  # (B,)
    keep = entropy < e_margin  # (B,)
    if average is not None:
        similar = F.cosine_similarity(average[None], logits.detach().softmax(dim=1), dim=1)  # (B,)
        keep = keep & (similar.abs() < d_margin)
    return keep * (e_margin - entropy).exp()


def sar_step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer, rho: float, e_margin: float) -> Tensor:
    """One step of SAR on a batch x (B, C, H, W); returns the logits (B, K) from before the update.

    theta: all that the optimiser holds. Climb by rho along the unit gradient of the mean entropy of the reliable
    (H < e_margin); there take the gradient of the mean entropy of those that are STILL reliable (before and
    after); come back to theta, and let the optimiser descend along it. If nobody is reliable, nothing moves.
    (SAR, section 4.)
    """
    theta = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    logits = model(x)  # (B, K)
    entropy = softmax_entropy(logits)  # (B,)
    reliable = entropy < e_margin  # (B,) bool
    gradients = torch.autograd.grad(mean_of(entropy, reliable), theta)  # 0 if nobody is
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    start = [parameter.detach().clone() for parameter in theta]
    with torch.no_grad():
        for parameter, gradient in zip(theta, gradients):
            parameter += rho * gradient / (length + 1e-12)
    second = softmax_entropy(model(x))  # (B,)
    optimizer.zero_grad()
    mean_of(second, reliable & (second < e_margin)).backward()
    with torch.no_grad():
        for parameter, value in zip(theta, start):
            parameter.copy_(value)
    optimizer.step()
    return logits.detach()


def no_gradient(weights: Any, arguments: dict[str, Any]) -> Tensor:
    """The weights; one that hangs on the logits would be minimised, too."""
    if isinstance(weights, Tensor) and weights.requires_grad:
        raise WrongAnswer("a gradient flows through the weights: detach them, they only say how much to listen")
    return weights


def _weights(logits: list, average: list | None, e_margin: float, d_margin: float) -> Case:
    def make() -> dict[str, Any]:
        mean = None if average is None else torch.tensor(average)
        z = torch.tensor(logits, requires_grad=True)
        return {"logits": z, "average": mean, "e_margin": e_margin, "d_margin": d_margin}

    return Case(make)


def _batch_of_weights(share: float, d_margin: float) -> Case:
    def make() -> dict[str, Any]:
        logits = (3 * torch.randn(12, 6)).requires_grad_()
        average = torch.full((6,), (1 - share) / 5)
        average[2] = share
        return {"logits": logits, "average": average, "e_margin": 0.717, "d_margin": d_margin}

    return Case(make)


def weights_cases() -> list[Case]:
    """Sure and unsure before any average; a common and a rare answer; margins; shifted logits; batches."""
    return [
        _weights([[4.0, 0.0], [0.0, 0.0]], None, 0.3, 0.5),
        _weights([[4.0, 0.0], [0.0, 4.0]], [0.9, 0.1], 0.3, 0.5),
        _weights([[4.0, 0.0, 0.0], [0.0, 3.0, 2.9], [0.0, 0.0, 1.0]], [0.8, 0.1, 0.1], 0.8, 0.95),
        _weights([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]], [0.4, 0.3, 0.3], 0.4, 0.05),
        _weights([[10.0, 5.0, 5.0]], [0.4, 0.3, 0.3], 0.4, 0.8),
        _batch_of_weights(0.6, 0.5),
        _batch_of_weights(1 / 6, 0.517),
    ]


def _sar(rho: float, e_margin: float, lr: float = 0.5, batch: int = 6, dropout: float = 0.0) -> Case:
    plain = step_case("sgd", lr, batch, dropout, stale=True)

    def make() -> dict[str, Any]:
        return {**plain.make(), "rho": rho, "e_margin": e_margin}

    return Case(make, keep_input=False, note=plain.note)


def _sar_by_hand(rho: float, e_margin: float, note: str) -> Case:
    """Two patients, a bias that moves: the climb that makes the first less sure makes the second more so."""

    def make() -> dict[str, Any]:
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        with torch.no_grad():
            model[1].weight.copy_(torch.eye(2))
            model[1].bias.zero_()
        x = torch.tensor([[3.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)  # entropies 0.19 and 0.58
        optimizer = torch.optim.SGD([model[1].bias], lr=0.5)
        return {"model": model, "x": x, "optimizer": optimizer, "rho": rho, "e_margin": e_margin}

    return Case(make, keep_input=False, note=note)


def sar_cases() -> list[Case]:
    """A long climb with all samples; the unreliable left out; two that the climb makes unreliable; dropout; one
    reliable only after the climb; nobody reliable, before or after it.
    """
    return [
        _sar(0.5, 2.0),
        _sar(0.5, 0.9),
        _sar(0.2, 0.8, batch=8),
        _sar(0.2, 0.9, batch=8, dropout=0.5),
        _sar_by_hand(0.8, 0.45, "the second patient is reliable only after the climb: he does not count"),
        _sar_by_hand(0.8, 0.1, "nobody is reliable: nothing moves"),
        _sar_by_hand(2.0, 0.45, "nobody is reliable both before and after the climb: nothing moves"),
    ]


EXERCISES = (
    Exercise(
        id="eata.weights",
        lesson="11_tent",
        title="on whom does EATA learn?",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:eata_weights",
        cases=weights_cases,
        observe=no_gradient,
        hints=(
            "Two questions to each sample: is its entropy below e_margin, and is its answer unlike the average "
            "(|cosine| below d_margin)? Before the first batch there is no average, and only the first counts.",
            "A yes to both weighs exp(e_margin - H), a no weighs 0. Detach: a weight is a number, not a loss. "
            "The cosine is between PROBABILITIES, with torch.nn.functional.cosine_similarity(..., dim=1).",
            "h = softmax_entropy(logits.detach()); keep = h < e_margin; if average is not None: keep = keep & "
            "(F.cosine_similarity(average[None], logits.detach().softmax(1), dim=1).abs() < d_margin); "
            "keep * (e_margin - h).exp()",
        ),
    ),
    Exercise(
        id="sar.step",
        lesson="11_tent",
        title="climb, look, come back, descend",
        difficulty=3,
        minutes=15,
        implementation=f"{__name__}:sar_step",
        cases=sar_cases,
        observe=logits_and_weights,
        hints=(
            "Two gradients: the first, of the reliable samples, says where the entropy rises most steeply; go "
            "there, a distance rho. The second is taken there, but the step is made from where you started.",
            "One length for all parameters together: the norm of all gradients as one long vector. Keep copies of "
            "theta before you climb; the second mean is over samples below e_margin both before and after. A mean "
            "over nobody is 0 / 0: if nobody is reliable, nothing may move.",
            "if nobody is reliable, return; g = torch.autograd.grad(H[H < e_margin].mean(), theta); with no_grad: "
            "p += rho * g / length; second = entropy of model(x); zero_grad; if both.any(): "
            "second[both].mean().backward(); with no_grad: p.copy_(start); step",
        ),
    ),
)
