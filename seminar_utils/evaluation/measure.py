"""Measure methods on a stream, seed by seed, and put every run into the results store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..adaptation import Source
from ..runtime import SeminarError
from .intervals import Interval, bootstrap_interval, paired_difference, seed_interval
from .metrics import harm_rate
from .results import ResultsStore
from .selection import RECORDED, Selection
from .streams import StreamResult, run_stream, stream

Row = dict[str, Any]
# in a row's params, what belongs to the method and not to the condition it was measured under
OF_THE_METHOD = ("method", "images", *RECORDED)


def measure(
    experiment: str,
    methods: Mapping[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]],
    models: Mapping[int, nn.Module],
    x: Tensor,
    labels: Tensor | np.ndarray,
    *,
    batch_size: int = 64,
    order: str = "iid",
    params: Mapping[str, Any] | None = None,
    store: ResultsStore | None = None,
    results: dict[tuple[str, int], StreamResult] | None = None,
    selections: Mapping[str, Selection] | None = None,
) -> list[Row]:
    """Run every method on every seed's model over the same stream; one row of the store a run.

    Args: experiment: its name in the store; methods: name -> builder of an adapter from a model;
    models: training seed -> model (the seed also orders the stream); x (N, C, H, W), labels (N,): what
    the clinic sends. params: said in the row beside method, batch_size, order and the number of images;
    results: takes in what each run said, by (method, seed), for pictures of a stream; selections: method -> how
    its settings were chosen, said in its rows and, unless by default, in its name there ("Tent (oracle)").
    Each row holds the metrics of `summary` and the harm rate against the source model on that stream.
    """
    store = store or ResultsStore()
    rows = []
    for seed, model in models.items():

        def run(build: Callable, model: nn.Module = model, seed: int = seed) -> tuple[StreamResult, float]:
            started = time.perf_counter()
            result = run_stream(build(model), stream(x, labels, batch_size, order, seed))
            return result, time.perf_counter() - started

        source = run(Source)
        for name, build in methods.items():
            result, seconds = source if build is Source else run(build)
            chosen = (selections or {}).get(name)
            called = chosen.label(name) if chosen else name
            about = {"method": called, "batch_size": batch_size, "order": order, "images": len(result.labels)}
            if results is not None:
                results[name, seed] = result
            harm = harm_rate(result.labels, source[0].predictions, result.predictions)
            metrics = {**result.metrics(), "harm": harm}
            told = {**about, **(params or {}), **(chosen.recorded() if chosen else {})}
            rows.append(store.append(experiment, told, metrics, image_intervals(result), seed, seconds))
    return rows


def image_intervals(result: StreamResult, n_boot: int = 200) -> dict[str, list[float]]:
    """Bootstrap intervals over the images of one run, for accuracy and balanced accuracy."""
    found = {}
    for name, metric in {"accuracy": _accuracies, "balanced_accuracy": _balanced_accuracies}.items():
        arrays = (result.labels, result.predictions)
        one = bootstrap_interval(*arrays, statistic=metric, n_boot=n_boot, vectorized=True)
        found[name] = [one.low, one.high]
    return found


def _accuracies(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """`accuracy` of many resamples at once: (..., N) -> (...)."""
    return (labels == predictions).mean(axis=-1)


def _balanced_accuracies(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """`balanced_accuracy` of many resamples at once: (..., N) -> (...); ten times as fast as one by one."""
    right, recalls = labels == predictions, []
    for k in range(int(max(labels.max(), predictions.max())) + 1):
        here = labels == k
        with np.errstate(invalid="ignore"):
            recalls.append((here & right).sum(axis=-1) / here.sum(axis=-1))  # NaN where there is none of the class
    return np.nanmean(np.stack(recalls, axis=-1), axis=-1)


def by_method(rows: Sequence[Row], metric: str = "balanced_accuracy") -> dict[str, dict[int, float]]:
    """method -> {seed: value}; of several runs of one method and seed the newest counts."""
    table: dict[str, dict[int, float]] = {}
    for row in rows:
        table.setdefault(row["params"]["method"], {})[row["seed"]] = row["metrics"][metric]
    return table


def summarise(rows: Sequence[Row], metric: str = "balanced_accuracy") -> dict[str, Interval]:
    """Mean and 95% interval (within [0, 1], as all our metrics) over the training seeds, for each method.

    Raises SeminarError when `rows` mixes conditions: the mean of unlike things is no result.
    """
    conditions = {
        tuple(sorted((k, str(v)) for k, v in row["params"].items() if k not in OF_THE_METHOD)) for row in rows
    }
    if len(conditions) != 1:
        raise SeminarError(f"summarise takes rows of one condition, got {len(conditions)} different ones")
    table = by_method(rows, metric)
    return {method: seed_interval(list(values.values()), bounds=(0, 1)) for method, values in table.items()}


def gain(rows: Sequence[Row], over: str, of: str, metric: str = "balanced_accuracy") -> Interval:
    """Interval of (method `of`) - (method `over`), paired seed by seed on the same stream."""
    table = by_method(rows, metric)
    seeds = sorted(table[over])
    return paired_difference([table[over][s] for s in seeds], [table[of][s] for s in seeds])


def _kept(experiment: str, store: ResultsStore | None, besides: str = "") -> list[Row]:
    rows = [row for row in (store or ResultsStore()).rows(experiment=experiment) if row["profile"] != "smoke"]
    if not rows:
        raise SeminarError(f"the results store has no run of {experiment!r}{besides}")
    return rows


def stored(experiment: str, store: ResultsStore | None = None) -> list[Row]:
    """All rows of an experiment, whoever measured them, but those of smoke runs; prints what they are.

    Raises SeminarError when there is none.
    """
    rows = _kept(experiment, store)
    days = sorted({row["time"][:10] for row in rows})
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    print(f"{len(rows)} rows of {experiment}, {' to '.join(days[:1] + days[1:][-1:])}, commits {commits}")
    return rows


def live_or_stored(
    experiment: str, available: bool, run: Callable[[], list[Row]], store: ResultsStore | None = None
) -> list[Row]:
    """Rows of an experiment on data that does not ship: run now if it is there, else from the store.

    Prints which of the two, with commit and date, so that nobody takes an old number for a new one.
    """
    if available:
        rows = run()
        print(f"Measured live just now ({len(rows)} runs, {rows[0]['device']}, commit {rows[0]['commit']}).")
        return rows
    rows = _kept(experiment, store, ", and its data is not here")
    newest = max(rows, key=lambda row: row["time"])
    print(f"The data is not here: from the results store ({newest['time'][:10]}, commit {newest['commit']}).")
    return rows
