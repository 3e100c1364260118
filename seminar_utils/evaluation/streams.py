"""A stream of patients, batch by batch: it decides whether test-time adaptation helps or ruins.

The orders are in orders.py; streams whose shift changes on the way in schedules.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..runtime import SeminarError, unknown_name
from .metrics import summary
from .orders import ORDERS


def stream(
    x: Tensor, labels: ArrayLike, batch_size: int, order: str = "iid", seed: int = 0, **options: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x (B, C, H, W), labels (B,)) in the given order; the last batch may be short.

    order: one of `ORDERS`; options: of that order, as delta for "dirichlet" (see orders.py).
    Raises SeminarError for an unknown order or option, a batch size below 1, an empty or unequal pair.
    """
    labels = check_pair(x, labels, batch_size)
    order_index = torch.as_tensor(order_of(labels, order, seed, **options))  # (M,)
    labels = torch.as_tensor(labels)
    for index in order_index.split(int(batch_size)):
        yield x[index.to(x.device)], labels[index]


def order_of(labels: np.ndarray, order: str, seed: int = 0, **options: Any) -> np.ndarray:
    """The indices of an order of `ORDERS` by name. Raises SeminarError for an unknown name, option or seed."""
    if order not in ORDERS:
        raise unknown_name("stream order", order, ORDERS)
    known = list(inspect.signature(ORDERS[order]).parameters)[2:]
    if strange := sorted(set(options) - set(known)):
        raise SeminarError(f"stream order {order!r} takes the options {known}, got {strange}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SeminarError(f"a seed is a non-negative integer, got {seed!r}")
    return ORDERS[order](labels, seed, **options)


def check_pair(x: Tensor, labels: ArrayLike, batch_size: int) -> np.ndarray:
    """The labels as an array (N,), once images, labels and batch size are found to fit together."""
    if not isinstance(x, Tensor):
        raise SeminarError(f"a stream takes images as a tensor (N, C, H, W), got {type(x).__name__}")
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    fits = labels.ndim == 1 and labels.dtype.kind in "iub" and len(labels) == len(x) > 0
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if not fits or not whole or batch_size < 1:
        raise SeminarError(
            f"a stream needs an integer batch_size >= 1 and equally many images and integer labels (N,), "
            f"more than 0; got batch_size {batch_size!r}, {len(x)} images, {labels.dtype} labels {labels.shape}"
        )
    return labels


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


def run_stream(method: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> StreamResult:
    """Feed a stream to `method` (an adapter or a model) batch by batch.

    Labels go into the result only: the method sees nothing but the images.
    """
    logits, labels, numbers = [], [], []
    for number, (x, y) in enumerate(batches):
        logits.append(method(x).detach().float().cpu().numpy())  # (B, K)
        labels.append(y.cpu().numpy())
        numbers.append(np.full(len(y), number))
    return StreamResult(np.concatenate(logits), np.concatenate(labels), np.concatenate(numbers))
