"""Who chose the settings of TTT++? Its own code: the test labels. What that adds, measured (see `ttt_table`)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from ..adaptation import BatchNormAdapt
from ..evaluation.measure import Row, measure
from ..evaluation.metrics import balanced_accuracy
from ..evaluation.results import ResultsStore
from ..evaluation.selection import Selection, select
from ..evaluation.shifts import apply_shift
from ..evaluation.streams import run_stream, stream
from .ttt_parts import Build, Patients, in_order_of_images, measured

EPOCHS, RATES = "ttt.epochs", "ttt.rates"
DEFAULT = {"lr": 1e-4}
LEARNING_RATES = (DEFAULT, {"lr": 1e-5}, {"lr": 1e-3}, {"lr": 1e-2})


def measure_epochs(
    models: Mapping[int, nn.Module],
    make: Callable[..., Build],
    those: Patients,
    store: ResultsStore,
    epochs: int = 8,
    rates: Sequence[float] = (1e-4,),
) -> list[Row]:
    """The paper's mode: adapt to all patients `epochs` times; after each, the score of all and of either half.

    The halves are every second patient: one half's labels may choose the epoch, and the other half tell what that
    choice is worth to patients who had no say. Epoch 0 is the network with batch statistics alone.
    """
    rows, even = [], np.arange(len(those.labels)) % 2 == 0
    for lr, (seed, model) in itertools.product(rates, models.items()):
        told = {**those.about, "method": "TTT++", "lr": lr, "images": len(those.labels)}
        if [row for row in measured(store, EPOCHS, **told, epoch=epochs) if row["seed"] == seed]:
            continue
        adapter = make(lr=lr)(model)
        answers = run_stream(BatchNormAdapt(model), stream(those.x, those.labels, 64, "iid", seed))
        said = in_order_of_images(answers, those, "iid", seed)
        for epoch in range(epochs + 1):
            if epoch:
                said = adapter.adapt_whole_set(those.x, 1).argmax(dim=1).numpy()
            parts = {"balanced_accuracy": slice(None), "first_half": even, "second_half": ~even}
            found = {name: balanced_accuracy(those.labels[where], said[where]) for name, where in parts.items()}
            rows.append(store.append(EPOCHS, {**told, "epoch": epoch}, found, seed=seed))
    return rows


def measure_rates(
    models: Mapping[int, nn.Module],
    make: Callable[..., Build],
    tested: Patients,
    others: Patients,
    validation: Patients,
    store: ResultsStore,
    candidates: Sequence[Mapping[str, float]] = LEARNING_RATES,
) -> list[Row]:
    """Who may choose the learning rate? Four rules, scored on the tested patients and on others of the scanner."""
    shifted = validation._replace(x=apply_shift(validation.x, "contrast", 2, seed=0))
    looked_at = {
        "source_validation": ("scanners A and B, validation", validation),
        "held_out_shift": ("contrast 2", shifted),
        "oracle": ("the tested patients", tested),
    }
    rows = []
    for seed, model in models.items():
        if len([row for row in measured(store, RATES) if row["seed"] == seed]) == 2 * (1 + len(looked_at)):
            continue

        def score(
            settings: Mapping[str, float], those: Patients, seed: int = seed, model: nn.Module = model
        ) -> float:
            said = run_stream(make(**settings)(model), stream(those.x, those.labels, 64, "iid", seed))
            return said.metrics()["balanced_accuracy"]

        chosen: dict[str, Selection] = {"default": select("default", candidates, default=DEFAULT)}
        for rule, (name, those) in looked_at.items():
            options = {"scored_on": name, "tested_on": "the tested patients"}
            chosen[rule] = select(rule, candidates, score=functools.partial(score, those=those), **options)
        for who, those in {"tested": tested, "others": others}.items():
            for rule, choice in chosen.items():
                params = {**those.about, "patients": who, "rule": rule}
                build, kinds = {"TTT++": make(**choice.settings)}, {"TTT++": choice}
                options = {"params": params, "store": store, "selections": kinds}
                rows += measure(RATES, build, {seed: model}, those.x, those.labels, **options)
    return rows
