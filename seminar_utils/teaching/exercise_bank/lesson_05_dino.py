"""Exercises of lesson 05: the teacher's targets, the loss over pairs of views, the slow copy, the monitor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import Case, Exercise, WrongAnswer


def teacher_targets(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    """The teacher's scores (2B, K), centred by `center` (1, K) and sharpened: distributions, without gradient.

    Caron et al., 2021 (arXiv 2104.14294), equation 1 with the centre of equation 4.
    """
    return ((teacher.detach() - center) / temperature).softmax(dim=-1)  # (2B, K)


def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> nn.Module:
    """theta_t = momentum * theta_t + (1 - momentum) * theta_s for every parameter (section 3.1).

    In place; buffers (BatchNorm's running statistics) are not averaged. Returns the teacher.
    """
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), student.parameters()):
            slow.mul_(momentum).add_(fast, alpha=1 - momentum)
    return teacher


def entropies(targets: Tensor) -> tuple[float, float, float]:
    """Distributions (N, K) -> mean entropy of a row, entropy of the mean row, and their difference, in nats."""
    own = torch.special.entr(targets).sum(dim=-1).mean().item()
    of_mean = torch.special.entr(targets.mean(dim=0)).sum().item()
    return own, of_mean, of_mean - own


def without_gradient(result: Any, arguments: dict[str, Any]) -> Any:
    """The targets; an answer through which a gradient reaches the teacher is wrong."""
    if isinstance(result, Tensor) and result.requires_grad:
        raise WrongAnswer("a gradient flows into the teacher: it is no student, cut it off")
    return result


def targets_cases() -> list[Case]:
    """Two prototypes, a centre that matters, sharp, scores that overflow, a batch with gradients."""

    def case(rows: list, center: list, temperature: float, grad: bool = False) -> Case:
        return Case(
            lambda: {
                "teacher": torch.tensor(rows, requires_grad=grad),
                "center": torch.tensor([center]),
                "temperature": temperature,
            }
        )

    return [
        case([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 1.0),
        case([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0], 1.0),
        case([[0.1, 0.2, 0.0], [0.3, 0.2, 0.1]], [0.2, 0.1, 0.0], 0.1),
        case([[100.0, 0.0], [90.0, 99.0]], [1.0, 0.0], 0.04),
        case([[0.5, 0.1, 0.0], [0.3, 0.2, 0.9]], [0.2, 0.1, 0.4], 0.5, grad=True),
    ]


def value_and_gradient(loss: Any, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The loss and what reaches the student's logits."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        raise WrongAnswer("expected one number, a tensor of shape ()")
    if not loss.requires_grad:
        raise WrongAnswer("no gradient flows back to the student: stay in torch, without detach or no_grad")
    (gradient,) = torch.autograd.grad(loss, arguments["logits"])
    return {"loss": loss, "gradient": gradient}


def loss_cases() -> list[Case]:
    """One image and its two global crops; then local crops; then a batch; then logits that overflow."""

    def case(batch: int, local: int, K: int, scale: float = 1.0) -> Case:
        def make() -> dict[str, Any]:
            targets = torch.randn(2 * batch, K).mul(2).softmax(dim=-1)
            logits = (scale * torch.randn((2 + local) * batch, K)).requires_grad_()
            return {"logits": logits, "targets": targets}

        return Case(make, note=f"{batch} image(s), 2 global and {local} local crops, crop after crop")

    return [case(1, 0, 2), case(1, 1, 2), case(2, 0, 3), case(3, 2, 4), case(2, 1, 3, scale=500.0)]


def both_nets(result: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Teacher and student afterwards, buffers included; what comes back must be the teacher itself."""
    if result is not arguments["teacher"]:
        raise WrongAnswer("return the teacher that was given, changed in place")
    nets = {name: dict(arguments[name].state_dict()) for name in ("teacher", "student")}
    parameters = [*arguments["teacher"].parameters(), *arguments["student"].parameters()]
    if any(p.grad_fn is not None for p in parameters):
        raise WrongAnswer("the update was recorded for backward: it belongs under torch.no_grad()")
    return nets


def ema_cases() -> list[Case]:
    """One weight, momentum 0.9, 1 and 0, a small network whose parameters want gradients, one with BatchNorm."""

    def case(make_net: Any, momentum: float) -> Case:
        def make() -> dict[str, Any]:
            return {"teacher": make_net(), "student": make_net(), "momentum": momentum}

        return Case(make, keep_input=False)

    def one() -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2))

    def with_buffers() -> nn.Module:
        norm = nn.BatchNorm1d(2)
        norm.running_mean.normal_()
        return nn.Sequential(nn.Linear(2, 2), norm)

    return [case(one, 0.9), case(one, 1.0), case(one, 0.0), case(net, 0.75), case(with_buffers, 0.5)]


def monitor_cases() -> list[Case]:
    """Uniform, one-hot always the same, one-hot and different, mixed."""
    rows = [
        [[0.5, 0.5], [0.5, 0.5]],
        [[1.0, 0.0], [1.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0]],
        [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]],
    ]
    return [Case(lambda row=row: {"targets": torch.tensor(row)}) for row in rows]


EXERCISES = (
    Exercise(
        id="dino.teacher_targets",
        lesson="05_dino",
        title="what the teacher says: centred, sharpened, no gradient",
        difficulty=1,
        minutes=6,
        implementation=f"{__name__}:teacher_targets",
        cases=targets_cases,
        observe=without_gradient,
        hints=(
            "In this order: subtract the centre, divide by the temperature, softmax over the prototypes.",
            "The centre is divided by the temperature too. The teacher does not learn: cut the gradient.",
            "((teacher.detach() - center) / temperature).softmax(dim=-1)",
        ),
    ),
    Exercise(
        id="dino.cross_view_loss",
        lesson="05_dino",
        title="the loss over pairs of different views",
        difficulty=3,
        minutes=15,
        implementation="seminar_utils.pretraining.dino:cross_view_loss",
        cases=loss_cases,
        observe=value_and_gradient,
        hints=(
            "Cut both into crops: targets.chunk(2) gives two tensors (B, K), logits.split(B) gives 2 + n of them. "
            "For each pair: the cross-entropy -sum_k t_k log p_k, mean over the images.",
            "Pairs in which both look at the same crop (0, 0) and (1, 1) are left out, also from the number of "
            "pairs by which you divide. Use log_softmax: log of a softmax underflows.",
            "B = len(targets) // 2; terms = [-(t * s.log_softmax(-1)).sum(-1).mean() "
            "for i, t in enumerate(targets.chunk(2)) for j, s in enumerate(logits.split(B)) if i != j]; "
            "return sum(terms) / len(terms)",
        ),
    ),
    Exercise(
        id="dino.ema_update",
        lesson="05_dino",
        title="the teacher follows slowly",
        difficulty=1,
        minutes=5,
        implementation=f"{__name__}:ema_update",
        cases=ema_cases,
        observe=both_nets,
        hints=(
            "Momentum 1 means that the teacher stands still, momentum 0 that it is a copy of the student.",
            "Walk over both lists of parameters at once and change the teacher's IN PLACE, without recording it "
            "for backward. The student and the buffers stay as they are. Return the teacher.",
            "with torch.no_grad(): for slow, fast in zip(teacher.parameters(), student.parameters()): "
            "slow.mul_(momentum).add_(fast, alpha=1 - momentum); return teacher",
        ),
    ),
    Exercise(
        id="dino.entropy_monitor",
        lesson="05_dino",
        title="two entropies that tell a collapse",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:entropies",
        cases=monitor_cases,
        hints=(
            "Two numbers with the same formula in another order: the mean of the rows' entropies, and the entropy "
            "of the mean row. In nats.",
            "A probability of 0 adds 0: torch.special.entr knows that, p * p.log() gives nan.",
            "own = torch.special.entr(targets).sum(-1).mean(); "
            "of_mean = torch.special.entr(targets.mean(0)).sum(); "
            "return own.item(), of_mean.item(), (of_mean - own).item()",
        ),
    ),
)
