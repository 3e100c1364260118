"""Exercises of lesson 12: turned images, a step of TTT, two gradients, the distance of moments, the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...adaptation.feature_alignment import coral, covariance, linear_mmd
from ...adaptation.norm import use_batch_statistics
from ...models.rotation import all_rotations, rotation_loss
from .base import Case, Exercise, WrongAnswer


def ttt_step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step of TTT on images x (B, C, S, S); returns the logits (B, K) of the upright images, AFTER the update.

    `model(images, auxiliary=True)` gives outputs (N, 4) of the rotation head and shared features; `model(x)` gives
    logits. Only what the optimiser holds may move; the modes of the model are somebody else's business.
    """
    turned, turns = all_rotations(x)  # (4B, C, S, S), (4B,)
    loss = rotation_loss(model(turned, auxiliary=True)[0], turns)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return model(x)  # (B, K)


def gradient_cosine(main: Tensor, auxiliary: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Cosine between the gradients of two losses (scalars), each over ALL parameters as one long vector.

    A parameter that a loss does not touch counts as zero there. No gradient is left in the parameters.
    """
    flat = []
    for loss in (main, auxiliary):
        found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        whole = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]
        flat.append(torch.cat([g.flatten() for g in whole]))  # (P,)
    one, other = flat
    return one @ other / (one.norm() * other.norm())


def moment_distance(features: Tensor, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """How far features (n, d) lie from source moments, mean (d,) and cov (d, d): (of the covariance, of the mean).

    The first is ||C - cov||_F^2 / (4 d^2) with the unbiased covariance C of the features, the second the average
    over the dimensions of the squared difference of the means.
    """
    return coral(covariance(features), cov), linear_mmd(features.mean(dim=0), mean)


def use_and_remember(storage: Tensor, pointer: int, batch: Tensor) -> tuple[Tensor, int]:
    """The features of a batch (n, d) together with the PAST ones, and the batch written over the oldest.

    storage (L, d) holds L past features; the oldest row is the one at `pointer`. Returns the features to measure
    moments on, (n + L, d): first the batch, with its gradient, then the storage as it was; and the new pointer.
    `storage` is changed in place, without gradient; beyond its last row writing goes on at row 0 (n <= L).
    """
    together = torch.cat([batch, storage.clone()])  # (n + L, d)
    rows = (pointer + torch.arange(len(batch))) % len(storage)  # (n,)
    storage[rows] = batch.detach()
    return together, (pointer + len(batch)) % len(storage)


def rotations_cases() -> list[Case]:
    """One image of four pixels; two images; channels that differ; a batch."""
    four = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    return [
        Case(lambda: {"x": four.view(1, 1, 2, 2).clone()}, note="quarter turns counter-clockwise, as torch.rot90"),
        Case(lambda: {"x": torch.stack([four, four + 10])[:, None]}),
        Case(lambda: {"x": torch.arange(18.0).view(1, 2, 3, 3)}),
        Case(lambda: {"x": torch.randn(5, 3, 4, 4)}),
    ]


class _Practised(nn.Module):
    """A small network with a rotation head, as TTT finds it: eval mode, batch statistics, some dropout."""

    def __init__(self, dropout: float):
        super().__init__()
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout)]
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *pool)
        self.classifier, self.head = nn.Linear(16, 3), nn.Linear(16, 4)
        self.eval()
        use_batch_statistics(self.encoder[1])

    def forward(self, x: Tensor, auxiliary: bool = False) -> Any:
        features = self.encoder(x)  # (B, 16)
        return (self.head(features), features) if auxiliary else self.classifier(features)


def _step(lr: float, batch: int = 2, dropout: float = 0.0, stale: bool = False) -> Case:
    def make() -> dict[str, Any]:
        model = _Practised(dropout)
        moving = list(model.encoder.parameters())
        if stale:  # gradients that an earlier computation left behind
            for parameter in moving:
                parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.SGD(moving, lr=lr)
        return {"model": model, "x": torch.randn(batch, 1, 6, 6), "optimizer": optimizer}

    left = "an earlier computation left its gradients in the parameters" if stale else ""
    return Case(make, keep_input=False, note=left)


def step_cases() -> list[Case]:
    """A plain step, gradients left from before, dropout in the model."""
    return [_step(0.5), _step(0.5, stale=True), _step(0.5, batch=5, dropout=0.5)]


def logits_and_weights(logits: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What was returned, and the model afterwards."""
    return {"logits": logits, "model after the step": dict(arguments["model"].state_dict())}


def _two_losses(one: Sequence[float], other: Sequence[float]) -> Case:
    """Two linear losses of one parameter: their gradients are the numbers given."""

    def make() -> dict[str, Any]:
        w = torch.ones(len(one), requires_grad=True)
        losses = [(w * torch.tensor(numbers)).sum() for numbers in (one, other)]
        return {"main": losses[0], "auxiliary": losses[1], "parameters": [w]}

    return Case(make, keep_input=False, note=f"the gradients are {list(one)} and {list(other)}")


def _y_shaped(unused: bool = False) -> dict[str, Any]:
    """A small network with two heads; `unused`: the second loss does not touch the last shared parameter."""
    x, encoder, scale = torch.randn(8, 5), nn.Linear(5, 4), torch.ones(4, requires_grad=True)
    shared = encoder(x).tanh()  # (8, 4): one forward, two losses
    main = nn.functional.cross_entropy(nn.Linear(4, 3)(shared * scale), torch.arange(8) % 3)
    auxiliary = (nn.Linear(4, 2)(shared if unused else shared * scale) - 1).square().mean()
    return {"main": main, "auxiliary": auxiliary, "parameters": [*encoder.parameters(), scale]}


def cosine_cases() -> list[Case]:
    """Numbers by hand; several parameters behind one forward; one that the second loss leaves alone."""
    return [
        _two_losses([3.0, 4.0], [4.0, 3.0]),
        _two_losses([1.0, 2.0], [-2.0, -4.0]),
        Case(_y_shaped, keep_input=False, note="three parameters, and both losses share one forward pass"),
        Case(
            lambda: _y_shaped(unused=True), keep_input=False, note="the auxiliary loss does not use the last one"
        ),
    ]


def cosine_and_traces(cosine: Any, arguments: dict[str, Any]) -> float:
    """The number, once no gradient was left behind."""
    if any(p.grad is not None for p in arguments["parameters"]):
        raise WrongAnswer("a measurement leaves no gradient in the parameters: use torch.autograd.grad")
    return float(cosine)


def distance_cases() -> list[Case]:
    """Two points by hand; the moments themselves; more dimensions, far from zero."""
    two = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    return [
        Case(lambda: {"features": two.clone(), "mean": torch.zeros(2), "cov": torch.zeros(2, 2)}),
        Case(lambda: {"features": two.clone(), "mean": torch.tensor([3.0, 1.0]), "cov": torch.eye(2)}),
        Case(lambda: {"features": torch.randn(6, 3) + 5, "mean": torch.randn(3), "cov": torch.eye(3)}),
    ]


def _queue(length: int, pointer: int, rows: int, dim: int = 2) -> Case:
    def make() -> dict[str, Any]:
        storage = -torch.arange(1.0, length * dim + 1).view(length, dim)
        batch = torch.arange(1.0, rows * dim + 1).view(rows, dim).requires_grad_()
        return {"storage": storage, "pointer": pointer, "batch": batch}

    return Case(make, keep_input=False, note="past features are negative, those of the batch positive")


def queue_cases() -> list[Case]:
    """One feature; several; a batch that runs over the end; a batch as long as the storage."""
    return [_queue(3, 0, 1, dim=1), _queue(4, 1, 2), _queue(5, 3, 4), _queue(3, 2, 3)]


def queue_and_gradient(result: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What was used, what is remembered, and what the batch learns: each of its rows once."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise WrongAnswer(f"expected a pair (features, pointer), got {type(result).__name__}")
    together, pointer = result
    storage, batch = arguments["storage"], arguments["batch"]
    if storage.requires_grad:
        raise WrongAnswer(
            "the storage keeps the graph of the batch: yesterday's patients would be learnt from again"
        )
    if not isinstance(together, Tensor) or not together.requires_grad:
        raise WrongAnswer("no gradient reaches the batch: nothing could be learnt from its moments")
    (gradient,) = torch.autograd.grad(together.sum(), batch)
    found = {"features": together, "storage afterwards": storage, "pointer": int(pointer)}
    return found | {"gradient of their sum to the batch": gradient}


EXERCISES = (
    Exercise(
        id="ttt.rotations",
        lesson="12_ttt",
        title="four positions, four labels for nothing",
        difficulty=1,
        minutes=6,
        implementation="seminar_utils.models.rotation:all_rotations",
        cases=rotations_cases,
        hints=(
            "torch.rot90(x, k, dims) turns by k quarter turns counter-clockwise. Which two axes of (B, C, S, S) "
            "are the picture?",
            "First all images upright (label 0), then all turned once (label 1), and so on: the labels are "
            "0, 0, ..., 1, 1, ..., as whole numbers.",
            "torch.cat([torch.rot90(x, k, dims=(2, 3)) for k in range(4)]) and "
            "torch.arange(4).repeat_interleave(len(x))",
        ),
    ),
    Exercise(
        id="ttt.step",
        lesson="12_ttt",
        title="one step of test-time training",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:ttt_step",
        cases=step_cases,
        observe=logits_and_weights,
        hints=(
            "Two passes through two heads: the turned images through the rotation head give the loss, the upright "
            "ones through the classifier give the answer. Which comes first?",
            "TTT practises, THEN answers: the logits come from the moved encoder, unlike Tent's. The optimiser "
            "knows what may move; old gradients have to go first.",
            "turned, turns = all_rotations(x); loss = F.cross_entropy(model(turned, auxiliary=True)[0], turns); "
            "zero_grad, backward, step; then model(x) under no_grad",
        ),
    ),
    Exercise(
        id="ttt.gradient_cosine",
        lesson="12_ttt",
        title="do the two tasks pull the same way?",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:gradient_cosine",
        cases=cosine_cases,
        observe=cosine_and_traces,
        hints=(
            "A cosine belongs to two vectors. All parameters together are one long vector: join their gradients "
            "before you compare, do not average cosines of the pieces.",
            "torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) leaves no trace; None "
            "stands for a parameter that the loss does not use, that is for zeros.",
            "g = torch.cat([(torch.zeros_like(p) if one is None else one).flatten() for ...]) for either loss; "
            "then g @ h / (g.norm() * h.norm())",
        ),
    ),
    Exercise(
        id="ttt.moment_distance",
        lesson="12_ttt",
        title="how far from home are these features?",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:moment_distance",
        cases=distance_cases,
        gradient_to=("features",),
        hints=(
            "Two moments, two numbers: the covariance first, then the mean. Both are compared by squared "
            "differences; neither takes a root.",
            "The covariance is that of CENTRED features, divided by n - 1; all d * d squared differences are "
            "summed and divided by 4 d^2. The means: squared differences, averaged over the d dimensions.",
            "c = f - f.mean(0); C = c.T @ c / (len(f) - 1); ((C - cov) ** 2).sum() / (4 * d**2) and "
            "((f.mean(0) - mean) ** 2).mean()",
        ),
    ),
    Exercise(
        id="ttt.queue",
        lesson="12_ttt",
        title="the queue, without the bug of the official one",
        difficulty=3,
        minutes=12,
        implementation=f"{__name__}:use_and_remember",
        cases=queue_cases,
        observe=queue_and_gradient,
        hints=(
            "Each feature counts once: the batch with its gradient, the past as it was BEFORE the batch came. "
            "A tensor that you were handed and then write into is no longer the past.",
            "Put together first (or take a clone), write afterwards; write batch.detach(). The rows to write "
            "are pointer, pointer + 1, ..., modulo the length.",
            "together = torch.cat([batch, storage.clone()]); rows = (pointer + torch.arange(len(batch))) % "
            "len(storage); storage[rows] = batch.detach()",
        ),
    ),
)
