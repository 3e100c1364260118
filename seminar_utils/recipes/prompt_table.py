"""The long table of lesson 14: what does a learnt prompt win on a new scanner, what does it lose on the old ones?

`python -m seminar_utils.recipes.prompt_table` measures it on the small CLIP, minutes of one thread; a run that was
killed goes on where it stopped. The rows ship in `data/results/prompt_table.jsonl` as "prompt.table". What is
measured: `prompt_parts`. Every method stands beside the zero-shot answers of one wording, image by image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ..evaluation.calibration import expected_calibration_error
from ..evaluation.intervals import Interval, bootstrap_interval, seed_interval
from ..evaluation.measure import Row
from ..evaluation.metrics import accuracy, balanced_accuracy, gain_rate, harm_rate, summary
from ..evaluation.results import ResultsStore, user_results
from .prompt_parts import CHECKPOINT, PARTS, TableConfig, Workbench

EXPERIMENT = "prompt.table"
CHANGES = ("ahead", "ece_change")  # metrics that may be below 0


def measure_answers(labels: np.ndarray, probs: np.ndarray, before: np.ndarray, n_boot: int) -> tuple[dict, dict]:
    """Metrics and their intervals over the images; gain, harm and their balance against the zero-shot `before`.

    `ahead` is the change of accuracy, `ece_change` that of ECE (below 0: better calibrated), both paired by image.
    """
    said, was = probs.argmax(axis=1), before.argmax(axis=1)
    statistics = {
        "accuracy": lambda y, p, q: accuracy(y, p.argmax(1)),
        "balanced_accuracy": lambda y, p, q: balanced_accuracy(y, p.argmax(1)),
        "ece": lambda y, p, q: expected_calibration_error(p, y),
        "ahead": lambda y, p, q: accuracy(y, p.argmax(1)) - accuracy(y, q.argmax(1)),
        "ece_change": lambda y, p, q: expected_calibration_error(p, y) - expected_calibration_error(q, y),
    }
    found = {
        k: bootstrap_interval(labels, probs, before, statistic=s, n_boot=n_boot) for k, s in statistics.items()
    }
    metrics = summary(probs, labels) | {name: one.mean for name, one in found.items()}
    metrics |= {"gain": gain_rate(labels, was, said), "harm": harm_rate(labels, was, said)}
    return metrics, {name: [one.low, one.high] for name, one in found.items()}


def measure_part(
    bench: Workbench, part: str, factor: str, seed: int, store: ResultsStore, experiment: str = EXPERIMENT
) -> list[Row]:
    """The rows of one part for one factor and seed; the last is marked: a part that was killed is done again."""
    answers = list(PARTS[part](bench, factor) if part == "zero-shot" else PARTS[part](bench, factor, seed))
    start, rows = bench.zero_shot(factor), []
    for number, one in enumerate(answers, 1):
        count = len(one.probs)
        labels = bench.labels("test", one.tried_on, factor)[:count]
        before = bench.probs(start, bench.features["test", one.tried_on][:count])
        metrics, intervals = measure_answers(labels, one.probs, before, bench.config.n_boot)
        about = {**one.about, "part": part, "factor": factor, "tried_on": one.tried_on, "images": count}
        about |= {"checkpoint": CHECKPOINT, "last": number == len(answers)}
        metrics |= one.extra
        rows.append(store.append(experiment, about, metrics, intervals, seed, one.seconds))
    return rows


def measure_table(
    config: TableConfig | None = None, store: ResultsStore | None = None, experiment: str = EXPERIMENT
) -> list[Row]:
    """All rows that are not in the store yet: parts of which the last row is there are left alone."""
    bench, store, rows = Workbench(config or TableConfig()), store or ResultsStore(user_results()), []
    done = {
        (row["params"]["part"], row["params"]["factor"], row["seed"])
        for row in store.rows(experiment=experiment)
        if row["params"]["last"]
    }
    for seed in bench.config.seeds:
        for factor in bench.config.factors:
            for part in PARTS:
                chosen = (part, factor, bench.config.seeds[0] if part == "zero-shot" else seed)
                if chosen not in done:
                    done.add(chosen)
                    rows += measure_part(bench, *chosen, store, experiment)
                    print(f"{time.strftime('%H:%M:%S')} {factor}, seed {seed}: {part}", flush=True)
    return rows


def prompt_table(rows: Sequence[Row], metric: str = "accuracy") -> dict[tuple, Interval]:
    """(method, labelled, shots, unlabelled, factor, tried_on) -> the mean over the seeds with Student's interval.

    The newest row of a seed counts. What no seed changes (zero-shot) has the bootstrap interval over the images.
    """
    groups: dict[tuple, dict[int, Row]] = {}
    for row in rows:
        key = tuple(
            row["params"].get(n) for n in ("method", "labelled", "shots", "unlabelled", "factor", "tried_on")
        )
        groups.setdefault(key, {})[row["seed"]] = row
    return {key: over_seeds(list(runs.values()), metric) for key, runs in groups.items()}


def over_seeds(runs: Sequence[Row], metric: str) -> Interval:
    """Over the seeds where they differ, else over the images: equal seeds would give an interval of no width.

    Cut to the range of the metric: shares lie in 0..1, changes in -1..1. None in a row (undefined) is NaN here.
    """
    values = [float("nan") if row["metrics"][metric] is None else row["metrics"][metric] for row in runs]
    if len(set(values)) > 1:
        return seed_interval(values, bounds=(-1, 1) if metric in CHANGES else (0, 1))
    return Interval(values[0], *runs[0]["intervals"].get(metric, (float("nan"), float("nan"))))


if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads()
    print(f"{len(measure_table())} rows written")
