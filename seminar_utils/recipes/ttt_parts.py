"""What the measurements of lesson 12 share: patients, three kinds of networks, builders of TTT++, rows on file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ..adaptation import TTTPlusPlus
from ..checkpoints import load_checkpoint
from ..data import load
from ..evaluation.measure import Row
from ..evaluation.results import ResultsStore
from ..evaluation.streams import StreamResult, order_of
from ..pretraining.simclr import TwoViews

CHECKPOINTS = {"plain": "resnet_small", "rotation": "resnet_small_rotation", "simclr": "resnet_small_simclr"}
SIZE, SOURCE_IMAGES, SOURCE_BATCH = 32, 1024, 256

Build = Callable[[nn.Module], Callable[[Tensor], Tensor]]
Networks = Mapping[str, Mapping[int, nn.Module]]  # kind of network -> training seed -> network


class Patients(NamedTuple):
    """Test images (N, 1, S, S) in [0, 1] and labels (N,), and what a row says about them."""

    x: Tensor
    labels: Tensor
    about: dict[str, Any]

    def part(self, start: int, stop: int) -> Patients:
        """Some of them."""
        return Patients(self.x[start:stop], self.labels[start:stop], self.about)


def patients(strength: float, n: int, split: str = "test", scanner: str = "C") -> Patients:
    """The first n patients of a split, as a scanner sees them."""
    about = {"data": "phantoms", "scanner": scanner, "strength": strength}
    return Patients(*load("phantoms", split, n=n, scanner=scanner, strength=strength).torch(size=SIZE), about)


def trained(seeds: Sequence[int] = (0, 1, 2)) -> dict[str, dict[int, nn.Module]]:
    """The course's networks of the three kinds, by training seed."""
    return {
        net: {seed: load_checkpoint(f"{name}-phantoms-s{seed}") for seed in seeds}
        for net, name in CHECKPOINTS.items()
    }


def source_images(n: int = SOURCE_IMAGES) -> list[Tensor]:
    """Training images of scanners A and B in batches, for the offline moments."""
    x, _ = load("phantoms", "train", n=n, scanner="AB").torch(size=SIZE)
    return list(x.split(SOURCE_BATCH))


def plus_plus(source: Sequence[Tensor]) -> Callable[..., Build]:
    """TTT++ by its settings, as builders that take a network's source moments only once."""

    @functools.cache
    def moments(model: nn.Module, policy: str) -> dict[str, Any]:
        return TTTPlusPlus(model, TwoViews(), policy=policy).fit_source(source).source

    def with_settings(policy: str = "batch", **settings: Any) -> Build:
        def build(model: nn.Module) -> TTTPlusPlus:
            return TTTPlusPlus(model, TwoViews(), policy=policy, source=moments(model, policy), **settings)

        return build

    return with_settings


def measured(store: ResultsStore, experiment: str, **where: Any) -> list[Row]:
    """The rows of an experiment in the file of new rows alone, where the params are as said."""
    return ResultsStore(store.path).rows(
        experiment=experiment, **{f"params.{key}": value for key, value in where.items()}
    )


def in_order_of_images(result: StreamResult, those: Patients, order: str, seed: int) -> np.ndarray:
    """What a method said about each image (N,), whatever the order in which they came."""
    answers = np.empty(len(those.labels), dtype=int)
    answers[order_of(those.labels.numpy(), order, seed)] = result.predictions
    return answers
