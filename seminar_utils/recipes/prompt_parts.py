"""What lesson 14's table measures: every method on every set of images, as `Answers`; the rows are made elsewhere.

Three settings that must not be compared as one: "zero-shot" and "test-time" need no label, "offline" needs
labelled images, of the known scanners or of the new one. Nothing is chosen by target labels: rates and lengths are
the papers', a context stops after its last epoch. All images come from seeds that CLIP was not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..adaptation import (
    CTPT,
    TPT,
    PromptConfig,
    PromptedCLIP,
    few_shots,
    fit_cocoop,
    fit_coop,
    fit_dapl,
    pseudo_labels,
    tip_adapter,
    tip_adapter_f,
)
from ..adaptation.views import random_views
from ..checkpoints import checkpoint_card, load_checkpoint
from ..data import ImageSet, load
from ..evaluation.probes import LinearProbe, fit_linear
from ..evaluation.shifts import apply_shift
from ..models.tokenizers import WordTokenizer
from ..models.zero_shot import ZeroShotModel, zero_shot_classifier
from .clip import TEMPLATES, WORDS, image_features

CHECKPOINT, STRENGTH = "clip_tiny-phantoms-s0", 0.7
SOURCE, TARGET = "A and B", f"C {STRENGTH:g}"
HELD_OUT = {f"{SOURCE}, {name} 3": (name, 3) for name in ("exposure", "poisson_noise")}
OTHER_WORDS = {  # words of the other factors, for an ensemble of wordings
    "place": ("a dark lesion in the {} of the organ", "a bright lesion in the {} of the organ"),
    "tone": ("a small {} lesion", "a large {} lesion"),
    "size": ("a {} dark lesion", "a {} bright lesion"),
    "type": ("a dark {} lesion", "a bright {} lesion"),
}
VIEWS = {"place": {"flip": False}, "tone": {"tone": 0.0}, "size": {"scale": 0.0}, "type": {}}  # keep the answer


@dataclass(frozen=True)
class TableConfig:
    """How much is measured: images for learning and for testing, images and views of TPT, shots, seeds.

    epochs: of CoOp by shots (the paper's); seeds: which images are labelled, and how a context starts.
    """

    pool: int = 1000
    test: int = 500
    tpt_images: int = 60
    n_views: int = 64
    shots: tuple[int, ...] = (1, 4, 16)
    epochs: Mapping[int, int] = field(default_factory=lambda: {1: 50, 4: 100, 16: 200})
    cocoop: PromptConfig = PromptConfig(lr=2e-3, epochs=10, batch_size=1)
    dapl: PromptConfig = PromptConfig(lr=3e-3, epochs=25, batch_size=32)
    seeds: tuple[int, ...] = (0, 1, 2)
    factors: tuple[str, ...] = tuple(TEMPLATES)
    n_boot: int = 200


class Answers(NamedTuple):
    """What a method says of one set of images: how it is described in the row, probabilities (N, K), its price."""

    about: dict[str, Any]
    tried_on: str
    probs: np.ndarray
    seconds: float | None = None
    extra: dict[str, float] = {}


class Workbench:
    """CLIP, its tokenizer, all images and their features, each computed once."""

    def __init__(self, config: TableConfig):
        self.config = config
        self.clip = load_checkpoint(CHECKPOINT)
        self.tokenizer = WordTokenizer(checkpoint_card(CHECKPOINT)["words"])

    @cached_property
    def sets(self) -> dict[tuple[str, str], ImageSet]:
        """(split, data) -> phantoms. "train" of the two data come from different seeds: no phantom is in both."""
        new = {"scanner": "C", "strength": STRENGTH}
        return {
            ("train", SOURCE): load("phantoms", "train", n=self.config.pool, scanner="AB", seed=1),
            ("train", TARGET): load("phantoms", "train", n=self.config.pool, seed=2, **new),
            ("train", "held out"): load("phantoms", "train", n=self.config.pool, scanner="AB", seed=2),
            ("test", SOURCE): load("phantoms", "test", n=self.config.test, scanner="AB"),
            ("test", TARGET): load("phantoms", "test", n=self.config.test, **new),
        }

    def images(self, split: str, data: str) -> Tensor:
        """Images (N, 1, 64, 64); a held-out shift is applied to images of the known scanners."""
        if data in HELD_OUT:
            name, severity = HELD_OUT[data]
            known = ("train", "held out") if split == "train" else ("test", SOURCE)
            return apply_shift(self.sets[known].torch(size=64)[0], name, severity)
        return self.sets[split, data].torch(size=64)[0]

    @cached_property
    def features(self) -> dict[tuple[str, str], Tensor]:
        """(split, data) -> features of length 1 (N, E)."""
        data = (SOURCE, TARGET, *HELD_OUT)
        return {(s, d): image_features(self.clip, self.images(s, d)) for s in ("train", "test") for d in data}

    def labels(self, split: str, data: str, factor: str) -> np.ndarray:
        """The factor's values (N,)."""
        known = "held out" if split == "train" else SOURCE
        return self.sets[split, known if data in HELD_OUT else data].factors[factor]

    def zero_shot(self, factor: str, templates: Sequence[str] | None = None) -> ZeroShotModel:
        """The classifier of one template, or of several."""
        words = (self.clip, self.tokenizer, WORDS[factor], templates or TEMPLATES[factor])
        return ZeroShotModel(self.clip, zero_shot_classifier(*words))

    @torch.no_grad()
    def probs(self, model: nn.Module, features: Tensor, **options: Any) -> np.ndarray:
        """Probabilities (N, K) of a classifier that takes features."""
        if isinstance(model, ZeroShotModel):
            logits = self.clip.logit_scale.exp() * features @ model.classifier.T
        else:
            logits = model(features, **options)
        return logits.double().softmax(dim=1).numpy()


def zero_shots(bench: Workbench, factor: str) -> Iterator[Answers]:
    """One wording, and several averaged; what the pseudo-labels of the one are worth on every set."""
    wordings = {"zero-shot": TEMPLATES[factor], "prompt ensemble": (*TEMPLATES[factor], *OTHER_WORDS[factor])}
    for method, templates in wordings.items():
        model = bench.zero_shot(factor, templates)
        for data in (SOURCE, TARGET, *HELD_OUT):
            probs = bench.probs(model, bench.features["test", data])
            about = {"method": method, "setting": "zero-shot", "templates": len(templates)}
            yield Answers(
                about, data, probs, extra=pseudo_label_quality(probs, bench.labels("test", data, factor))
            )


def pseudo_label_quality(probs: np.ndarray, labels: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """The share of images with a pseudo-label, and the share of these that is right (NaN without any).

    The labels serve to measure, never to learn.
    """
    pseudo, _, mask = pseudo_labels(torch.from_numpy(probs).log(), threshold)
    right = (pseudo.numpy() == labels)[mask.numpy()]
    return {
        "kept": float(mask.float().mean()),
        "pseudo_right": float(right.mean()) if len(right) else float("nan"),
    }


def offline_few_shots(bench: Workbench, factor: str, seed: int) -> Iterator[Answers]:
    """What learns from a few labelled images of the known scanners, or of the new one; tried on both."""
    names, config, classifier = WORDS[factor], bench.config, bench.zero_shot(factor).classifier
    for labelled in (SOURCE, TARGET):
        y = bench.labels("train", labelled, factor)
        for shots in config.shots:
            few = few_shots(y, shots, seed)
            x, labels = bench.features["train", labelled][few], y[few]
            coop = PromptConfig(epochs=config.epochs[shots], seed=seed)
            tip = partial(tip_adapter, bench.clip, classifier, x, labels)
            words = (bench.clip, bench.tokenizer, names, x, labels)
            fits = {
                "CoOp": lambda words=words, coop=coop: fit_coop(*words, coop),
                "linear probe": lambda x=x, labels=labels: linear_probe(x, labels, len(names)),
                "Tip-Adapter": tip,
                "Tip-Adapter-F": lambda tip=tip: tip_adapter_f(tip(), seed=seed),
            }
            if shots == max(config.shots):
                fits["CoCoOp"] = lambda words=words: fit_cocoop(*words, replace(config.cocoop, seed=seed))
            for method, fit in fits.items():
                started = time.perf_counter()
                model = fit()
                seconds = time.perf_counter() - started
                about = {"method": method, "setting": "offline", "shots": shots, "labelled": labelled}
                for data in (SOURCE, TARGET):
                    yield Answers(about, data, bench.probs(model, bench.features["test", data]), seconds)


class ProbeModel(nn.Module):
    """A fitted linear probe as a model that gives log-probabilities."""

    def __init__(self, probe: LinearProbe):
        super().__init__()
        self.probe = probe

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, E) -> log-probabilities (B, K)."""
        return torch.from_numpy(self.probe.probabilities(features.numpy())).clamp(min=1e-12).log()


def linear_probe(x: Tensor, labels: np.ndarray, num_classes: int) -> ProbeModel:
    """Logistic regression on standardised features with C = 1: a few shots leave no images to choose it by."""
    few = (x.numpy(), labels)
    return ProbeModel(fit_linear(*few, *few, num_classes, strengths=(1.0,)))


def offline_domains(bench: Workbench, factor: str, seed: int) -> Iterator[Answers]:
    """DAPL from A and B, all labelled, to the new scanner, and to each held-out shift of the known ones.

    Each scanner is asked with its own prompt; ", prompts swapped": each with the other's, which tells what the
    loss on the target did from what its vectors do. `kept` and `pseudo_right` are of the unlabelled images.
    """
    x, y = bench.features["train", SOURCE], bench.labels("train", SOURCE, factor)
    variants = [("DAPL", "code", data) for data in (TARGET, *HELD_OUT)] + [("DAPL, 2K-way", "paper", TARGET)]
    options = {"n_ctx": 8, "n_dmx": 8, "naive": TEMPLATES[factor][0], "ending": ""}  # 16 + 16 would not fit
    for method, softmax, data in variants:
        started, unlabelled = time.perf_counter(), bench.features["train", data]
        config = replace(bench.config.dapl, seed=seed)
        words = (bench.clip, bench.tokenizer, WORDS[factor], x, y, unlabelled, config)
        model = fit_dapl(*words, softmax=softmax, **options)
        seconds = time.perf_counter() - started
        about = {"setting": "offline", "labelled": SOURCE, "unlabelled": data, "softmax": softmax}
        fixed = model.zero_shot(unlabelled).double().softmax(dim=1).numpy()
        extra = pseudo_label_quality(fixed, bench.labels("train", data, factor))
        for ending, asked in (("", ("target", "source")), (", prompts swapped", ("source", "target"))):
            for tried_on, prompt in zip((data, SOURCE), asked):
                probs = bench.probs(model, bench.features["test", tried_on], domain=prompt)
                described = {"method": method + ending, **about, "prompt": prompt}
                yield Answers(described, tried_on, probs, seconds, extra)


def test_time(bench: Workbench, factor: str, seed: int) -> Iterator[Answers]:
    """TPT and C-TPT from the zero-shot wording, on the first test images only; the seed draws the views."""
    start = PromptedCLIP.from_template(bench.clip, bench.tokenizer, WORDS[factor], TEMPLATES[factor][0])

    def views(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return random_views(x.expand(count, -1, -1, -1), generator, **VIEWS[factor])

    for method, kind in {"TPT": TPT, "C-TPT": CTPT}.items():
        for data in (SOURCE, TARGET):
            adapter, started = (
                kind(start, n_views=bench.config.n_views, views=views, seed=seed),
                time.perf_counter(),
            )
            logits = adapter(bench.images("test", data)[: bench.config.tpt_images])
            about = {"method": method, "setting": "test-time", "views": bench.config.n_views}
            probs = logits.double().softmax(dim=1).numpy()
            yield Answers(about, data, probs, time.perf_counter() - started)


PARTS = {
    "zero-shot": zero_shots,
    "few shots": offline_few_shots,
    "domains": offline_domains,
    "test-time": test_time,
}
