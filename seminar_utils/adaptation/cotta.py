"""CoTTA: continual test-time adaptation. Wang et al., CVPR 2022 (arXiv 2203.13591)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .norm import set_norm_policy
from .tent import class_rows
from .views import random_views

View = Callable[[Tensor, int, torch.Generator], Tensor]


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, in place."""
    for slow, fast in zip(teacher.parameters(), student.parameters()):
        slow.mul_(momentum).add_(fast, alpha=1 - momentum)


class CoTTA(Adapter):
    """A student learns from a slow teacher's averaged answers, and now and then a weight goes home.

    All parameters move. Teacher: moving average of the student (`momentum`). Target: the teacher's answer, or,
    when the frozen source model is unsure of the batch (mean confidence < `threshold`), the mean of the teacher's
    logits over `n_views` random views. Student: one step down the cross-entropy to the target. Then each
    weight of the student returns to its source value with probability `restore_rate`. Returns the TARGET, the
    teacher's logits from before the update.

    Args: view: (x, number, generator) -> a view of x that keeps its class; default `random_views`. seed: of views
    and restoring.
    Defaults: the paper's for CIFAR-10 (Adam 0.001, 0.999, 0.01, 0.92, 32 views; threshold 0.1 on ImageNet). Raises
    SeminarError for a rate outside its range, no view, or a model that does not classify images.
    """

    returned = "the teacher's logits, from before the update"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        momentum: float = 0.999,
        restore_rate: float = 0.01,
        threshold: float = 0.92,
        n_views: int = 32,
        optimizer: str = "adam",
        policy: str = "batch",
        view: View | None = None,
        seed: int = 0,
    ):
        if not (0 <= momentum <= 1 and 0 <= restore_rate <= 1) or n_views < 1:
            came = f"{momentum}, {restore_rate} and {n_views}"
            raise SeminarError(f"momentum and restore_rate lie in [0, 1], n_views is at least 1; got {came}")
        self.lr, self.momentum, self.restore_rate = lr, momentum, restore_rate
        self.threshold, self.n_views, self.optimizer_name = threshold, n_views, optimizer
        self.policy, self.view, self.seed = (
            policy,
            view or (lambda x, i, generator: random_views(x, generator)),
            seed,
        )
        super().__init__(model)

    def configure(self) -> None:
        """Teacher and anchor start as copies of the student, each with its own statistics."""
        set_norm_policy(self.model, self.policy)
        self.teacher, self.source = copy.deepcopy(self.model), copy.deepcopy(self.model)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """All of them."""
        return dict(self.model.named_parameters())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam, or SGD with momentum 0.9."""
        return build_optimizer(self.optimizer_name, self.parameters_to_adapt(), self.lr)

    def forget(self) -> None:
        """The teacher, and what the anchor's statistics saw, are the source's again."""
        for network in (self.teacher, self.source):
            network.load_state_dict(self._snapshot, strict=True)

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """What the student shall say to x (B, C, H, W): the teacher's logits (B, K), averaged when in doubt."""
        confidence = class_rows(self.source(x)).softmax(dim=1).amax(dim=1).mean()
        answer = self.teacher(x)  # (B, K)
        if answer.ndim != 2:
            raise SeminarError(
                f"CoTTA's views move pixels: it adapts classifiers, got logits {tuple(answer.shape)}"
            )
        if confidence >= self.threshold:
            return answer
        views = (self.view(x, i, self.generator) for i in range(self.n_views))
        return torch.stack([self.teacher(view) for view in views]).mean(dim=0)  # (views, B, K) -> (B, K)

    @torch.no_grad()
    def restore_some(self) -> None:
        """Each entry of the student goes home with probability `restore_rate`."""
        for name, parameter in self.model.named_parameters():
            home = self._snapshot[name].to(parameter.device)
            parameter.copy_(torch.where(self.uniform(name, parameter) < self.restore_rate, home, parameter))

    def uniform(self, name: str, parameter: Tensor) -> Tensor:
        """Random numbers in [0, 1), one for each entry of a parameter."""
        return torch.rand(parameter.shape, generator=self.generator).to(parameter.device)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Adapt on x (B, C, H, W); returns the target (B, K)."""
        student = self.model(x)  # (B, K)
        target = self.target(x)  # (B, K)
        wanted, said = class_rows(target).softmax(dim=1), class_rows(student).log_softmax(dim=1)
        self.descend(-(wanted * said).sum(dim=1).mean())
        follow(self.teacher, self.model, self.momentum)
        self.restore_some()
        return target
