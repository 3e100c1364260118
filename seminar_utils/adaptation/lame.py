"""LAME: parameter-free online test-time adaptation. Boudiaf et al., CVPR 2022 (arXiv 2201.05718).

The network stays as it is; its answers to one batch are made to agree with their neighbours'.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import SeminarError, unknown_name
from .base import Adapter
from .heads import features_and_logits, find_head
from .norm import set_norm_policy

KERNELS = ("knn", "rbf", "linear")


def affinity(features: Tensor, kernel: str = "knn", k: int = 5, symmetric: bool = False) -> Tensor:
    """Who is whose neighbour: features (N, D) of length 1 to W (N, N).

    "knn": 1 for the k nearest after the closest one, itself, is dropped; "rbf": exp(-d^2 / 2 sigma^2), sigma = the
    mean distance to the k-th closest, itself being the first; "linear": the cosine. A small batch has fewer
    neighbours. `symmetric` averages W with its transpose. Raises SeminarError for another kernel or k < 1.
    """
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    if k < 1:
        raise SeminarError(f"at least one neighbour is needed, got k={k}")
    if kernel == "linear":
        W = features @ features.T  # (N, N)
    else:
        distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N)
        W = _nearest(distance, k) if kernel == "knn" else _gaussian(distance, k)
    return (W + W.T) / 2 if symmetric else W


def _nearest(distance: Tensor, k: int) -> Tensor:
    closest = distance.topk(min(k + 1, len(distance)), largest=False).indices[:, 1:]  # (N, k)
    return torch.zeros_like(distance).scatter_(1, closest, 1.0)


def _gaussian(distance: Tensor, k: int) -> Tensor:
    sigma = distance.topk(min(k, len(distance)), largest=False).values[:, -1].mean()
    return (-(distance**2) / (2 * sigma**2).clamp(min=torch.finfo(distance.dtype).tiny)).exp()


def refine(probs: Tensor, W: Tensor, weight: float = 1.0, max_steps: int = 100) -> Tensor:
    """Fixed point of Y <- softmax(log p + weight * W Y), from p: (N, K) -> (N, K).

    Each step lowers a bound of the energy; it stops when the bound changes by less than 1e-8 of itself.
    """
    log_p = (probs + 1e-10).log()  # (N, K), minus the unary
    Y, old = log_p.softmax(dim=1), math.inf
    for step in range(max_steps):
        pull = weight * W @ Y  # (N, K)
        Y = (log_p + pull).softmax(dim=1)
        energy = float((Y * (-log_p - weight * pull + Y.clamp(min=1e-20).log())).sum())
        if step > 1 and abs(energy - old) <= 1e-8 * abs(old):
            break
        old = energy
    return Y


class LAME(Adapter):
    """Correct the probabilities of a batch so that neighbours in feature space agree; nothing is learnt.

    Helps where a batch holds few classes (a sorted, correlated stream), harms where its neighbours are strangers.
    The official energy weighs the neighbours by the square of `weight`; it only decides when to stop.

    Args: kernel, k, symmetric: see `affinity`; weight: lambda; policy: of BatchNorm (the paper: the source's);
    head: the name of the classifier. Returns the logarithm of the refined probabilities: softmax gives them back.
    """

    returned = "log of the refined probabilities"

    def __init__(
        self,
        model: nn.Module,
        kernel: str = "knn",
        k: int = 5,
        symmetric: bool = False,
        weight: float = 1.0,
        max_steps: int = 100,
        policy: str = "source",
        head: str | None = None,
    ):
        affinity(torch.ones(1, 1), kernel, k)  # wrong settings are refused now, not at the first patient
        if max_steps < 1:
            raise SeminarError(f"LAME needs at least one step, got max_steps={max_steps}")
        self.kernel, self.k, self.symmetric, self.weight = kernel, k, symmetric, weight
        self.max_steps, self.policy, self.head_name = max_steps, policy, head
        super().__init__(model)

    def configure(self) -> None:
        """Only the statistics of BatchNorm may be other than the source's."""
        set_norm_policy(self.model, self.policy)
        self.head = find_head(self.model, self.head_name)[1]

    @torch.no_grad()
    def adapt_batch(self, x: Tensor) -> Tensor:
        """Refine the answers to x (B, C, H, W): log-probabilities (B, K)."""
        features, logits = features_and_logits(self.model, self.head, x)  # (B, D), (B, K)
        W = affinity(F.normalize(features, dim=1), self.kernel, self.k, self.symmetric)  # (B, B)
        Y = refine(logits.softmax(dim=1), W, self.weight, self.max_steps)  # (B, K)
        return Y.clamp(min=torch.finfo(Y.dtype).tiny).log()
