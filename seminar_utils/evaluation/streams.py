"""In which order do patients come? The stream decides whether test-time adaptation helps or ruins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..runtime import SeminarError, unknown_name
from .metrics import summary


def iid_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Patients in random order: what most papers assume. Indices (N,)."""
    return np.random.default_rng(seed).permutation(len(labels))


def class_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Patients sorted by class (random within a class): one clinic after another. Indices (N,)."""
    shuffled = iid_order(labels, seed)
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def prevalence_order(labels: np.ndarray, seed: int, share: float = 0.9) -> np.ndarray:
    """A stream in which `share` of the patients belong to one class, drawn by the seed. Indices (M,), M <= N."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    common = rng.choice(np.unique(labels))
    often, rare = shuffled[labels[shuffled] == common], shuffled[labels[shuffled] != common]
    keep = rare[: max(1, round(len(often) * (1 - share) / share))]
    return rng.permutation(np.concatenate([often, keep]))


ORDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "iid": iid_order,
    "class": class_order,
    "prevalence": prevalence_order,
}


def stream(
    x: Tensor, labels: ArrayLike, batch_size: int, order: str = "iid", seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x (B, C, H, W), labels (B,)) in the given order; the last batch may be short.

    Raises SeminarError for an unknown order, a batch size below 1, an empty or unequal pair.
    """
    if order not in ORDERS:
        raise unknown_name("stream order", order, ORDERS)
    labels = torch.as_tensor(np.asarray(labels))
    if batch_size < 1 or len(x) != len(labels) or len(x) == 0:
        raise SeminarError(
            f"a stream needs batch_size >= 1 and equally many images and labels, more than 0; "
            f"got batch_size {batch_size}, {len(x)} images, {len(labels)} labels"
        )
    for index in torch.as_tensor(ORDERS[order](labels.numpy(), seed)).split(batch_size):
        yield x[index.to(x.device)], labels[index]


@dataclass(frozen=True)
class StreamResult:
    """What a method said about a stream: logits (N, K) float, labels (N,), batch index (N,), in stream order."""

    logits: np.ndarray
    labels: np.ndarray
    batch: np.ndarray

    @property
    def probs(self) -> np.ndarray:
        """Softmax of the logits, (N, K)."""
        return torch.from_numpy(self.logits).double().softmax(dim=1).numpy()

    @property
    def predictions(self) -> np.ndarray:
        """Predicted classes, (N,)."""
        return self.logits.argmax(axis=1)

    def metrics(self) -> dict[str, float]:
        """Accuracy, balanced accuracy, ECE and predicted-class entropy over the whole stream."""
        return summary(self.probs, self.labels)


def run_stream(method: Callable[[Tensor], Tensor], batches: Iterator[tuple[Tensor, Tensor]]) -> StreamResult:
    """Feed a stream to `method` (an adapter or a model) batch by batch.

    Labels go into the result only: the method sees nothing but the images.
    """
    logits, labels, numbers = [], [], []
    for number, (x, y) in enumerate(batches):
        logits.append(method(x).detach().float().cpu().numpy())  # (B, K)
        labels.append(y.cpu().numpy())
        numbers.append(np.full(len(y), number))
    return StreamResult(np.concatenate(logits), np.concatenate(labels), np.concatenate(numbers))
