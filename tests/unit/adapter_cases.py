"""The list of what the contract (test_contract.py) is tried on: every method of the registry, with every norm.

A new method joins by one entry in CASES. Settings are chosen so that something happens on random images with an
untrained network: selection open, rates high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from seminar_utils.adaptation import METHODS, Adapter, PromptedCLIP
from seminar_utils.models.clip import clip_tiny
from seminar_utils.models.neighbor_labels import with_label_network
from seminar_utils.models.resnet import BasicBlock, ResNet
from seminar_utils.models.tokenizers import WordTokenizer
from seminar_utils.models.two_heads import with_projection_head, with_rotation_head
from seminar_utils.models.vit import VisionTransformer
from seminar_utils.pretraining.simclr import TwoViews

ALL = ("bn", "gn", "ln")
NETWORKS = {
    "bn": lambda k: ResNet(BasicBlock, (1, 1), (8, 16), k, 1, "bn", small_stem=True),
    "gn": lambda k: ResNet(BasicBlock, (1, 1), (8, 16), k, 1, "gn", small_stem=True),
    "ln": lambda k: VisionTransformer(12, 4, 1, k, dim=24, depth=2, num_heads=2, drop_path=0.5),
}


def source_model(kind: str, num_classes: int = 3) -> nn.Module:
    """An untrained network whose statistics differ from any batch's; in train mode, which must not matter."""
    torch.manual_seed(0)
    return with_statistics(NETWORKS[kind](num_classes))


def prepared(add: Callable[[ResNet], nn.Module]) -> Callable[..., nn.Module]:
    """As `source_model`, for a ResNet with what training before the test adds to it."""

    def model(kind: str, num_classes: int = 3) -> nn.Module:
        torch.manual_seed(0)
        # 16 channels and more: with fewer, oneDNN's backward pass of a strided 1x1 convolution writes past its
        # buffer on channels-last maps, such as LayerNorm2d makes (github.com/uxlfoundation/oneDNN, issue 6035).
        return with_statistics(add(ResNet(BasicBlock, (1, 1), (16, 32), num_classes, 1, kind, small_stem=True)))

    return model


def prompted(kind: str, num_classes: int = 3) -> nn.Module:
    """A small CLIP with learnable prompts, its image tower one of the networks above."""
    torch.manual_seed(0)
    tokenizer = WordTokenizer(["a", "dark", "grey", "bright", "lesion"])
    clip = clip_tiny(tokenizer.vocab_size, image_size=12)
    clip.visual = NETWORKS[kind](clip.num_features)
    names = ["dark", "grey", "bright"][:num_classes]
    return with_statistics(PromptedCLIP.from_template(clip, tokenizer, names, "a {} lesion"))


def with_statistics(model: nn.Module) -> nn.Module:
    """The model in train mode with running statistics of no batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.train()


def batches(count: int = 3, size: int = 8, seed: int = 1) -> list[torch.Tensor]:
    """Random images (size, 1, 12, 12) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 1, 12, 12, generator=generator) for _ in range(count)]


@dataclass(frozen=True)
class Case:
    """One method with settings.

    method: its name in the registry; settings: keyword arguments; passes: forward, backward, and their images, for
    a batch of 8; no_op: further settings with which it must answer as the source model does, None if it never
    does; empty: further settings that select no sample; kinds: norms it is tried on; buffers_move: whether it is
    meant to change buffers; model: (kind, num_classes) -> a network with what the method needs.
    """

    name: str
    method: str
    settings: dict
    passes: tuple[int, int, int, int]
    no_op: dict | None = None
    empty: dict | None = None
    kinds: tuple[str, ...] = ALL
    buffers_move: bool = False
    model: Callable[..., nn.Module] = source_model

    def build(self, model: nn.Module, **more) -> Adapter:
        """The adapter on a copy of `model`, with its source images seen if it wants any."""
        method = METHODS[self.method](model, **{**self.settings, **more})
        return method.fit_source(batches(2, seed=9)) if method.needs_source else method


ENTROPY = {"lr": 0.0, "policy": "source"}
OPEN = {"e_margin": 5.0, "lr": 0.05}
PLAIN = {"lr": 0.01, "steps": 2, "episodic": True, "move_head": True}
VIEWS = {"views": TwoViews(), "lr": 1e-4}
ALIGN = {**VIEWS, "contrast": 0.0, "queue_length": 5, "wait_for_queue": True}
TUNE = {"n_views": 4, "share": 0.5, "lr": 0.05}
HARD = {"labels": "hard", "samples": 2, "episodic": False}
CASES = [
    Case("source", "source", {}, (1, 0, 8, 0), no_op={}),
    Case("bn", "bn", {}, (1, 0, 8, 0), {"policy": "source"}, kinds=("bn",)),
    Case("bn-running", "bn", {"update_running": True}, (1, 0, 8, 0), kinds=("bn",), buffers_move=True),
    Case("bn-restart", "bn", {"update_running": True, "restart": True}, (1, 0, 8, 0), None, None, ("bn",), True),
    Case(
        "bn-blend",
        "bn",
        {"policy": "blend", "batch_weight": 0.3},
        (1, 0, 8, 0),
        {"batch_weight": 0.0},
        kinds=("bn",),
    ),
    Case("bn-ema", "bn", {"policy": "ema"}, (1, 0, 8, 0), {"batch_weight": 0.0}, kinds=("bn",), buffers_move=True),
    Case("tent", "tent", {"lr": 0.01, "norms": ALL}, (1, 1, 8, 8), ENTROPY),
    Case("tent-steps", "tent", {"steps": 3, "optimizer": "sgd", "norms": ALL}, (3, 3, 24, 24), ENTROPY),
    Case("tent-episodic", "tent", {"lr": 0.01, "episodic": True, "norms": ALL}, (1, 1, 8, 8), ENTROPY),
    Case("eta", "eta", {**OPEN, "d_margin": 2.0}, (1, 1, 8, 8), ENTROPY, {"e_margin": 0.0}),
    Case("eata", "eata", {**OPEN, "d_margin": 2.0}, (1, 1, 8, 8), ENTROPY, {"e_margin": 0.0}),
    Case("sar", "sar", OPEN, (2, 2, 16, 16), ENTROPY, {"e_margin": 0.0}),
    Case("sar-recovers", "sar", {**OPEN, "reset_below": 5.0}, (2, 2, 16, 16), ENTROPY, {"e_margin": 0.0}),
    Case(
        "cotta",
        "cotta",
        {"n_views": 2, "threshold": 2.0, "restore_rate": 0.1, "momentum": 0.9},
        (5, 1, 40, 8),
        {**ENTROPY, "threshold": 0.0},
    ),
    Case("memo", "memo", {"n_views": 3, "lr": 0.01}, (16, 8, 32, 24), ENTROPY),
    Case("memo-online", "memo", {"n_views": 3, "episodic": False, "optimizer": "adamw"}, (16, 8, 32, 24), ENTROPY),
    Case("t3a", "t3a", {"filter_k": 2}, (1, 0, 8, 0)),
    Case("lame", "lame", {}, (1, 0, 8, 0), {"weight": 0.0}),
    Case("lame-rbf", "lame", {"kernel": "rbf", "symmetric": True}, (1, 0, 8, 0), {"weight": 0.0}),
    Case("shot_im", "shot_im", {"lr": 0.05}, (1, 1, 8, 8), {**ENTROPY, "weight_decay": 0.0}),
    Case("rdumb", "rdumb", {**OPEN, "d_margin": 2.0, "every": 2}, (1, 1, 8, 8), ENTROPY, {"e_margin": 0.0}),
    Case("tent_reset", "tent_reset", {"every": 2, "norms": ALL}, (1, 1, 8, 8), ENTROPY),
    Case("ttt", "ttt", {"lr": 0.01}, (2, 1, 40, 32), ENTROPY, model=prepared(with_rotation_head)),
    Case("ttt-plain", "ttt", PLAIN, (3, 2, 72, 64), ENTROPY, model=prepared(with_rotation_head)),
    Case("ttt++", "ttt_plus_plus", VIEWS, (3, 2, 32, 24), ENTROPY, model=prepared(with_projection_head)),
    Case("ttt++-align", "ttt_plus_plus", ALIGN, (2, 1, 16, 8), ENTROPY, model=prepared(with_projection_head)),
    Case("neighbors", "neighbor_labels", {}, (2, 1, 16, 8), ENTROPY, model=prepared(with_label_network)),
    Case("tpt", "tpt", TUNE, (16, 8, 40, 16), {"lr": 0.0}, model=prompted),
    Case("tpt-steps", "tpt", {**TUNE, "steps": 2}, (24, 16, 56, 32), {"lr": 0.0}, model=prompted),
    Case("c_tpt", "c_tpt", TUNE, (16, 8, 40, 16), {"lr": 0.0}, model=prompted),
    Case("neighbors-hard", "neighbor_labels", HARD, (2, 1, 16, 8), ENTROPY, model=prepared(with_label_network)),
]
