"""Test-time training: before it predicts, the network practises a task that needs no label.

Sun et al., Test-time training with self-supervision for generalization under distribution shifts, ICML 2020
(arXiv 1909.13231).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.rotation import all_rotations, rotation_loss
from ..models.two_heads import TwoHeads
from ..runtime import SeminarError
from .base import Adapter, build_optimizer
from .norm import set_norm_policy


class TTT(Adapter):
    """Minimise the rotation loss of the incoming images over the encoder, then classify them (section 2).

    What moves: the encoder that both tasks share; `move_head` also opens the rotation head, as the official code
    does unless told otherwise (the paper's formula moves the encoder alone, our default). Per batch, `steps`
    times: turn every image to all four positions, forward, backward, SGD without momentum; then one forward of the
    upright images. Online by default (the paper's "TTT-Online"); `episodic` starts each batch anew (plain TTT).

    Ours: the paper adapts to one image at a time, on 32 random crops of it in random positions, for 10 steps (or
    1, online); here a batch is the unit, as for the other methods, and each image is seen in all positions. The
    paper uses GroupNorm because a batch of one has no statistics. With BatchNorm, `policy` says which ones are
    used: "batch" (then compare with BatchNorm adaptation of the SAME model, not with source) or "source".

    Args: model: a TwoHeads trained with the rotation task. Raises SeminarError for any other model, for images
    that are not square, steps < 1 or lr < 0. Default rate: the paper's.
    """

    returned = "logits of one more forward, after the last update"
    prepared = "rotation"

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        steps: int = 1,
        episodic: bool = False,
        move_head: bool = False,
        policy: str = "batch",
    ):
        check_prepared(model, "rotation", "TTT")
        check_settings(steps, lr)
        self.lr, self.steps, self.policy = lr, steps, policy
        self.episodic, self.move_head = episodic, move_head
        super().__init__(model)

    def configure(self) -> None:
        """BatchNorm uses the statistics that the policy names."""
        set_norm_policy(self.model, self.policy)

    def parameters_to_adapt(self) -> dict[str, nn.Parameter]:
        """The shared encoder, and the rotation head if `move_head`."""
        head = {f"head.{name}": p for name, p in self.model.head.named_parameters()}
        return {**self.model.encoder_parameters(), **(head if self.move_head else {})}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD without momentum or weight decay (official code)."""
        return build_optimizer("sgd", self.parameters_to_adapt(), self.lr, momentum=0.0)

    def adapt_batch(self, x: Tensor) -> Tensor:
        """Practise on x (B, C, S, S), then return the logits (B, K) of the moved encoder."""
        if self.episodic:
            self.restore()
        turned, turns = all_rotations(x)  # (4B, C, S, S), (4B,)
        for _ in range(self.steps):
            loss = rotation_loss(self.model(turned, auxiliary=True)[0], turns)
            self.descend(loss)
        with torch.no_grad():
            return self.model(x)


def check_prepared(model: nn.Module, task: str, method: str) -> None:
    """Raise SeminarError unless the model was built with a head for this task: it cannot be had at test time."""
    if not isinstance(model, TwoHeads) or model.task != task:
        has = f"a network with the task {model.task}" if isinstance(model, TwoHeads) else type(model).__name__
        raise SeminarError(
            f"{method} needs a network that was trained with a {task} head (resnet_small_{task}), got {has}"
        )


def check_settings(steps: int, lr: float) -> None:
    """Raise SeminarError for settings that no training can have."""
    if steps < 1 or lr < 0:
        raise SeminarError(f"test-time training needs steps >= 1 and lr >= 0, got {steps} and {lr}")
