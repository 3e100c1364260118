"""Run one cell of a benchmark: in any process, on any machine, with the same numbers.

A cell is computed by one thread, from its own seed, one cell at a time in a process; so it does not matter which
process takes it, and after which other one. What several cells need (models, images, what the source model says)
is kept by the process.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import platform
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..adaptation.passes import Passes, count_passes, networks_of
from ..adaptation.registry import create_method, preparation
from ..checkpoints.course import checkpoint_card, load_checkpoint
from ..data import ImageSet, load, options_of
from ..pretraining.simclr import TwoViews
from ..runtime import SeminarError, pick_device, seed_everything
from .bench_cells import Cell, Setup, data_name, words
from .checks import reasons
from .measure import image_intervals
from .metrics import all_metrics, balanced_accuracy, gain_rate, harm_rate, predicted_class_entropy
from .results import code_commit, versions
from .schedules import NO_SHIFT, severity_ramp, shifted_stream
from .selection import Selection, select
from .shifts import apply_shift, shift_conditions
from .streams import StreamResult, run_stream, stream

ALARM = 0.5  # predicted classes with less than this share of the labels' entropy: the model has collapsed
SOURCE_BATCH = 64  # source images are shown before the first patient, where nobody knows how patients will come
_ONE_CELL_AT_A_TIME = threading.Lock()  # seeds and threads are the process's, not the thread's


def run_cell(cell: Cell, setup: Setup) -> dict[str, Any]:
    """What came of a cell: params, metrics, intervals, reasons, seconds, ran_on; or `error` in one line.

    Never raises for what goes wrong in the cell, whatever it is.
    """
    with _ONE_CELL_AT_A_TIME:
        try:
            with undisturbed():
                for module in setup.imports:
                    importlib.import_module(module)
                return {**_measured(cell, setup), "ran_on": ran_on()}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
            return {"error": told, "ran_on": ran_on()}


@contextmanager
def undisturbed() -> Iterator[None]:
    """One thread for torch, so that sums are the same everywhere; threads and random states are given back."""
    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])


@functools.cache
def ran_on() -> dict[str, Any]:
    """Where the numbers were made: device, versions, commit and host."""
    about = {"device": str(pick_device()), "versions": versions(), "commit": code_commit()}
    return {**about, "host": platform.node()}


@dataclass(frozen=True)
class Run:
    """One pass of a method over a stream, and what it took."""

    result: StreamResult
    seconds: float
    fit_seconds: float
    passes: Passes


def _measured(cell: Cell, setup: Setup) -> dict[str, Any]:
    settings, chosen = _chosen(cell, setup)
    plain = cell.method["name"] == "source"
    source = _source(_without_method(cell), setup)
    run = source if plain else _run(cell, setup, settings)
    result = run.result
    metrics = all_metrics(result.probs, result.labels) | _against(source.result, result) | _cost(run)
    return {
        "params": {"images": len(result.labels), **(chosen.recorded() if chosen else {})},
        "metrics": metrics,
        "intervals": image_intervals(result, cell.resamples),
        "reasons": reasons(metrics),
        "seconds": run.seconds,
        "fit_seconds": run.fit_seconds,
    }


def _against(source: StreamResult, result: StreamResult) -> dict[str, float]:
    """Harm and gain against the source model on the same stream, and the alarm: 1 when the method collapsed."""
    classes = result.logits.shape[1]
    heard, true = (predicted_class_entropy(values, classes) for values in (result.predictions, result.labels))
    return {
        "harm": harm_rate(result.labels, source.predictions, result.predictions),
        "gain": gain_rate(result.labels, source.predictions, result.predictions),
        "collapse_alarm": float(heard < ALARM * true),
    }


def _cost(run: Run) -> dict[str, float]:
    images = len(run.result.labels)
    return {
        "ms_per_image": 1000 * run.seconds / images,
        "forward_per_image": run.passes.forward_images / images,
        "backward_per_image": run.passes.backward_images / images,
    }


def _run(cell: Cell, setup: Setup, settings: Mapping[str, Any]) -> Run:
    """A fresh method over the cell's stream."""
    batches = _stream(cell, setup)
    seed_everything(cell.seed)
    method = method_of(cell, setup, settings)
    if hasattr(method, "seed"):  # what a method draws by itself follows the cell
        method.seed = cell.seed
        method.reset()
    started = time.perf_counter()
    if cell.source_images is not None:
        method.fit_source(_source_batches(cell, setup))
    fitted = time.perf_counter()
    with count_passes(method) if networks_of(method) else nullcontext(Passes()) as passes:
        result = run_stream(with_resets(method, cell.reset), batches)
    return Run(result, time.perf_counter() - fitted, fitted - started, copy.copy(passes))


def method_of(cell: Cell, setup: Setup, settings: Mapping[str, Any]) -> Callable:
    """The cell's method on its model. The views of a contrast are those of the model's training, from its card."""
    name = cell.method["name"]
    model = _model(cell.checkpoint, cell.weights, setup)
    if preparation(name) == "simclr":
        views = checkpoint_card(cell.checkpoint, setup.checkpoints)["config"]["views"]
        settings = {"views": TwoViews(**as_tuples(views)), **settings}
    return create_method(name, model, **settings)


def with_resets(method: Callable, every: int) -> Callable[[Tensor], Tensor]:
    """The method, put back to its start before every `every`-th batch (1: before each; 0: never)."""
    if every == 0:
        return method
    back = getattr(method, "restore", method.reset)  # a restore lets counters and random numbers run on
    seen = 0

    def call(x: Tensor) -> Tensor:
        nonlocal seen
        if seen and seen % every == 0:
            back()
        seen += 1
        return method(x)

    return call


def _without_method(cell: Cell) -> str:
    """The cell with the source model for its method, which harm is measured against; as the key of a cache."""
    bare = replace(cell, method={"name": "source", "settings": {}}, reset=0, source_images=None, model="")
    return json.dumps(vars(bare), sort_keys=True)


@functools.lru_cache(maxsize=64)
def _source(cell: str, setup: Setup) -> Run:
    return _run(Cell(**json.loads(cell)), setup, {})


@functools.lru_cache(maxsize=8)
def _model(checkpoint: str, weights: str, setup: Setup) -> nn.Module:
    found = checkpoint_card(checkpoint, setup.checkpoints)["sha256"]
    if not found.startswith(weights):
        raise SeminarError(
            f"{checkpoint} has other weights here ({found[:12]}) than in the spec's cell ({weights})"
        )
    return load_checkpoint(checkpoint, pick_device(), setup.checkpoints)


def image_set(data: Mapping[str, Any], images: int | None, split: str | None = None) -> ImageSet:
    """At most `images` images of a cell's data (a fixed random choice; of phantoms the first), kept for later."""
    return _image_set(words(data), images, split or data["split"])


@functools.lru_cache(maxsize=4)
def _image_set(data: str, images: int | None, split: str) -> ImageSet:
    data = json.loads(data)
    if data["name"] == "phantoms":
        return load("phantoms", split, n=images, **data["options"])
    found = load(data["name"], split, **data["options"])
    if images is None or images >= len(found):
        return found
    return found.subset(np.sort(np.random.default_rng(0).permutation(len(found))[:images]))


@functools.lru_cache(maxsize=4)
def _tensors(data: str, images: int | None, split: str, checkpoint: str, setup: Setup) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) as the model takes them, and labels (N,)."""
    card = checkpoint_card(checkpoint, setup.checkpoints)
    return _image_set(data, images, split).torch(card["size"], card["model_args"].get("in_chans", 3))


@functools.lru_cache(maxsize=4)
def _shifted(
    data: str, images: int | None, split: str, checkpoint: str, setup: Setup, shift: str, severity: int, seed: int
) -> tuple[Tensor, Tensor]:
    x, labels = _tensors(data, images, split, checkpoint, setup)
    return (x if (shift, severity) == NO_SHIFT else apply_shift(x, shift, severity, seed)), labels


def _stream(cell: Cell, setup: Setup):
    """The batches of a cell, ready before the clock starts: shifts are the world's work, not the method's."""
    of = (words(cell.data), cell.images, cell.data["split"], cell.checkpoint, setup)
    kind = cell.stream
    if "schedule" not in kind:
        x, labels = _shifted(*of, cell.shift, cell.severity, cell.seed)
        return list(stream(x, labels, cell.batch_size, kind["order"], cell.seed, **kind["options"]))
    x, labels = _tensors(*of)
    how = {"schedule": kind["schedule"], "rounds": kind["rounds"], "whole_set": kind["whole_set"]}
    conditions = _conditions(kind["conditions"], cell, x.shape[1])
    order = {"order": kind["order"], "seed": cell.seed, **kind["options"]}
    return list(shifted_stream(x, labels, conditions, cell.batch_size, **how, **order))


def _conditions(conditions: str | list, cell: Cell, channels: int) -> list[tuple[str, int]]:
    if conditions == "ramp":
        return severity_ramp(cell.shift)[: cell.severity + 1]
    if isinstance(conditions, str):
        return shift_conditions(conditions, channels)
    return [(shift, severity) for shift, severity in conditions]


def trained_on(cell: Cell, setup: Setup) -> dict[str, Any]:
    """The data set a cell's model was trained on, as a cell names data."""
    about = checkpoint_card(cell.checkpoint, setup.checkpoints)["data"]
    known = set(options_of(about["name"])) - {"n"}
    return {"name": about["name"], "split": "val", "options": {key: about[key] for key in known & set(about)}}


def _source_batches(cell: Cell, setup: Setup) -> list[Tensor]:
    """Unlabelled images of the source's training split, in batches that know nothing of the cell's stream."""
    source = words(trained_on(cell, setup))
    x, _ = _tensors(source, cell.source_images, "train", cell.checkpoint, setup)
    return list(x.split(min(SOURCE_BATCH, -(-len(x) // 2))))  # two at least: a spread between batches


def _chosen(cell: Cell, setup: Setup) -> tuple[dict[str, Any], Selection | None]:
    """The settings of the cell's method; if a rule chose them, the Selection that a row must tell."""
    fixed = as_tuples(cell.method["settings"])
    rule = cell.method.get("selection", "default")
    if rule == "default":
        return fixed, None
    tested_on = f"{data_name(cell.data)}, {cell.shift} {cell.severity}"
    on = (
        cell
        if rule == "oracle"
        else replace(cell, data=trained_on(cell, setup), stream={"order": "iid", "options": {}})
    )
    if rule == "source_validation":
        on = replace(on, shift="none", severity=0)
    elif rule == "held_out_shift":
        on = replace(on, shift=cell.method["held_out"][0], severity=cell.method["held_out"][1])
    scored_on = tested_on if rule == "oracle" else f"{data_name(on.data)}, {on.shift} {on.severity}"

    def score(settings: Mapping[str, Any]) -> float:
        result = _run(on, setup, {**fixed, **as_tuples(settings)}).result
        return balanced_accuracy(result.labels, result.predictions)

    names = {"score": score, "scored_on": scored_on, "tested_on": tested_on}
    selection = select(rule, cell.method["candidates"], **names)
    return {**fixed, **as_tuples(selection.settings)}, selection


def as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as methods take them: TOML and JSON have lists only."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def keep_to_one_thread() -> None:
    """For a process of its own: whatever computes in it, now and in its children, does so with one thread."""
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    torch.set_num_threads(1)
