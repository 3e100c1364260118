"""Streams whose conditions change on the way: a scanner that ages, mixed devices, sites that come back.

A condition is a shift of ours at a severity (`shifted_stream`) or a real domain (`domain_stream`). A schedule says
which condition each place of the stream has: "gradual" one after another in the order given, "mixed" every patient
a random one, "recurring" the conditions in turn, `rounds` times.
Sources: gradual and recurring change as in Wang et al. 2022 (CoTTA), section 4, and Press et al. 2023 (RDumb);
mixed as in Niu et al. 2023 (SAR), section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..runtime import SeminarError, unknown_name
from .shifts import SEVERITIES, apply_shift
from .streams import check_pair, order_of

SCHEDULES = ("gradual", "mixed", "recurring")
NO_SHIFT = ("none", 0)


@dataclass(frozen=True, eq=False, repr=False)
class ConditionStream:
    """A stream that knows under which condition each patient came; give it to `run_stream` as it is.

    x (M, C, H, W) and labels (M,) in stream order; index (M,): the image's number in its set; condition (M,):
    names as "blur 3", "none" or "d2". Iterating yields (x (B, C, H, W), labels (B,)); the last batch may be
    short, and a batch may straddle two conditions. `len` is the number of batches. Score each condition by
    `result.labels[stream.condition == name]`.
    """

    x: Tensor
    labels: Tensor
    index: np.ndarray
    condition: np.ndarray
    batch_size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.x.split(self.batch_size), self.labels.split(self.batch_size))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __repr__(self) -> str:
        names = list(dict.fromkeys(self.condition.tolist()))
        return f"ConditionStream({len(self.labels)} images in {len(self)} batches, conditions {names})"


def severity_ramp(shift: str, back: bool = False) -> list[tuple[str, int]]:
    """Conditions of a gradual shift: none, severity 1 to 5, and with `back` down again to none."""
    up = [NO_SHIFT, *((shift, severity) for severity in SEVERITIES)]
    return up + up[-2::-1] if back else up


def shifted_stream(
    x: Tensor,
    labels: ArrayLike,
    conditions: Sequence[tuple[str, int]],
    batch_size: int,
    schedule: str = "gradual",
    order: str = "iid",
    seed: int = 0,
    rounds: int = 3,
    whole_set: bool = False,
    **options: Any,
) -> ConditionStream:
    """One set of images x (N, C, H, W) in [0, 1], under changing shifts.

    conditions: (shift, severity) pairs, ("none", 0) for none, as from `severity_ramp` or `shift_conditions`.
    order, options: of the patients, see `stream`. whole_set False: every image comes at most once, under one
    condition. True: each condition (in "recurring" each round of it) shows the whole set, as benchmarks with
    continual shift do; under one shift an image looks the same every time.
    Raises SeminarError for unknown names, no conditions, or fewer images than stretches of the schedule.
    """
    labels = check_pair(x, labels, batch_size)
    conditions = _conditions(conditions)
    stretches = _stretches(schedule, len(conditions), rounds)
    copies = stretches if whole_set else 1
    orders = [order_of(labels, order, seed + copy, **options) for copy in range(copies)]
    index = np.concatenate(orders)  # (M,)
    if whole_set and schedule == "mixed":
        number = np.repeat(np.arange(len(conditions)), [len(part) for part in orders])  # (M,)
        shuffled = np.random.default_rng(seed).permutation(len(index))
        index, number = index[shuffled], number[shuffled]
    elif whole_set:
        number = np.repeat(np.arange(copies) % len(conditions), [len(part) for part in orders])
    else:
        number = _schedule(schedule, len(index), len(conditions), stretches, seed)
    names = np.array(["none" if pair == NO_SHIFT else f"{pair[0]} {pair[1]}" for pair in conditions])
    shifted = _shifted(x, index, number, conditions, seed)
    return ConditionStream(shifted, torch.as_tensor(labels)[index], index, names[number], int(batch_size))


def domain_stream(
    domains: Mapping[str, tuple[Tensor, ArrayLike]],
    batch_size: int,
    schedule: str = "recurring",
    order: str = "iid",
    seed: int = 0,
    rounds: int = 3,
    **options: Any,
) -> ConditionStream:
    """Real domains (name -> images (N, C, H, W) and labels (N,)) in one stream; every image at most once.

    "gradual": one whole domain after another. "recurring": each domain's patients are dealt out over `rounds`
    visits. "mixed": all domains shuffled together. order, options: of the patients within a domain.
    Raises SeminarError for unknown names, images of different shapes, or a domain with fewer images than rounds.
    """
    if not domains:
        raise SeminarError("a stream of domains needs at least one domain, got none")
    checked = {name: check_pair(x, labels, batch_size) for name, (x, labels) in domains.items()}
    shapes = {name: tuple(x.shape[1:]) for name, (x, _) in domains.items()}
    if len(set(shapes.values())) > 1:
        raise SeminarError(f"the domains of a stream hold images of one shape (C, H, W), got {shapes}")
    visits = _stretches(schedule, len(domains), rounds) // len(domains)
    orders = {name: order_of(labels, order, seed, **options) for name, labels in checked.items()}
    short = {name: len(index) for name, index in orders.items() if len(index) < visits}
    if short:
        raise SeminarError(f"{visits} rounds need as many images of every domain, got {short}")
    parts = {name: np.array_split(index, visits) for name, index in orders.items()}
    turns = [(name, parts[name][visit]) for visit in range(visits) for name in domains]
    x = torch.cat([domains[name][0][torch.as_tensor(part)] for name, part in turns])  # (M, C, H, W)
    labels = torch.cat([torch.as_tensor(checked[name][part]) for name, part in turns])  # (M,)
    index = np.concatenate([part for _, part in turns])
    condition = np.repeat([name for name, _ in turns], [len(part) for _, part in turns])
    if schedule == "mixed":
        shuffled = np.random.default_rng(seed).permutation(len(index))
        x, labels, index, condition = x[shuffled], labels[shuffled], index[shuffled], condition[shuffled]
    return ConditionStream(x, labels, index, condition, int(batch_size))


def _stretches(schedule: str, conditions: int, rounds: int) -> int:
    """Into how many stretches of one condition a stream falls (for "mixed": how many conditions there are)."""
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    if isinstance(rounds, bool) or not isinstance(rounds, int | np.integer) or rounds < 1:
        raise SeminarError(f"rounds is an integer of at least 1, got {rounds!r}")
    return conditions * (int(rounds) if schedule == "recurring" else 1)


def _schedule(schedule: str, count: int, conditions: int, stretches: int, seed: int) -> np.ndarray:
    """The number of the condition at each of `count` places, (count,); all conditions get equally many."""
    if count < stretches:
        raise SeminarError(f"{stretches} stretches of a stream need at least as many images, got {count}")
    if schedule == "mixed":
        return np.random.default_rng(seed).permutation(np.arange(count) % conditions)
    return np.arange(count) * stretches // count % conditions


def _conditions(conditions: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The pairs as a checked list; what a shift is, `apply_shift` checks."""
    try:
        pairs = [(shift, severity) for shift, severity in conditions]
    except (TypeError, ValueError):
        raise SeminarError(f"conditions are (shift, severity) pairs, got {conditions!r:.80}") from None
    if not pairs:
        raise SeminarError("a stream needs at least one (shift, severity), got none")
    return pairs


def _shifted(x: Tensor, index: np.ndarray, number: np.ndarray, conditions: list, seed: int) -> Tensor:
    """The images at `index`, each under its condition, (M, C, H, W)."""
    out = x.new_empty(len(index), *x.shape[1:])
    for k, (shift, severity) in enumerate(conditions):
        places = torch.as_tensor(np.flatnonzero(number == k), device=x.device)
        patients = torch.as_tensor(index[number == k])
        images = x[patients.to(x.device)]
        plain = (shift, severity) == NO_SHIFT
        out[places] = images if plain else apply_shift(images, shift, severity, seed, patients)
    return out
