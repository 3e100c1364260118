"""Self-supervision at test time, measured for lesson 12: TTT and TTT++ beside controls of the SAME network.

    python -m seminar_utils.recipes.ttt_table

About a quarter of an hour of one core. A part that is already in the file of new rows is not measured again, so a
run that was stopped goes on. Experiments in the store:
* "ttt.table": one row for each network, method, training seed and condition (strength of scanner C, order, batch);
* "ttt.difference": for each condition the paired differences, with intervals over training seeds and patients;
* "ttt.dial": TTT++ by weight of the alignment and length of the queue, batches of 16;
* "ttt.epochs": the paper's mode, over and over the same patients, scored after each epoch;
* "ttt.rates": the learning rate of TTT++ by four rules, on the patients that an oracle looks at and on others.

Every setting is the package's default, and none was chosen here, but where a row says "oracle".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..adaptation import TTT, BatchNormAdapt, Source, Tent
from ..evaluation.differences import is_real
from ..evaluation.measure import Row, measure
from ..evaluation.results import ResultsStore
from ..evaluation.streams import StreamResult
from .ttt_choice import measure_epochs, measure_rates
from .ttt_parts import (
    CHECKPOINTS,
    Build,
    Networks,
    Patients,
    in_order_of_images,
    measured,
    patients,
    plus_plus,
    source_images,
    trained,
)

TABLE, DIFFERENCE, DIAL = "ttt.table", "ttt.difference", "ttt.dial"
CONDITIONS = tuple(itertools.product((0.7, 0.35), ("iid", "class"), (64, 16)))  # strength, order, batch size
STORED = ("iid", 64)  # where the variants with stored statistics are measured
COMPARED = (  # (network, after), (network, before)
    *((net, "BN", net, "source") for net in CHECKPOINTS),
    *((net, "Tent", net, "BN") for net in CHECKPOINTS),
    ("rotation", "TTT", "rotation", "BN"),
    ("rotation", "TTT", "rotation", "Tent"),
    ("rotation", "TTT stored", "rotation", "source"),
    ("simclr", "TTT++", "simclr", "BN"),
    ("simclr", "contrast only", "simclr", "BN"),
    ("simclr", "alignment only", "simclr", "BN"),
    ("simclr", "TTT++", "simclr", "Tent"),
    ("simclr", "TTT++", "simclr", "alignment only"),
    ("simclr", "TTT++", "simclr", "contrast only"),
    ("simclr", "TTT++ stored", "simclr", "source"),
    ("simclr", "TTT++", "plain", "Tent"),
    ("simclr", "TTT++", "rotation", "TTT"),
)
FACTORS, QUEUES = (0.0, 0.1, 1.0, 10.0), (0, 64)  # of the dial; 0: no queue


def methods(make: Callable[..., Build], stored: bool = True) -> dict[str, dict[str, Build]]:
    """What is compared, by the kind of network; "stored": with the statistics that BatchNorm remembers."""
    of_batch, of_source = _with_batch_statistics(make), _with_stored_statistics(make)
    return {net: of_batch[net] | (of_source[net] if stored else {}) for net in CHECKPOINTS}


def _with_batch_statistics(make: Callable[..., Build]) -> dict[str, dict[str, Build]]:
    controls = {"source": Source, "BN": BatchNormAdapt, "Tent": Tent}
    return {
        "plain": controls,
        "rotation": controls | {"TTT": TTT},
        "simclr": controls
        | {
            "TTT++": make(),
            "contrast only": make(align_features=0.0, align_projections=0.0),
            "alignment only": make(contrast=0.0),
        },
    }


def surviving(build: Build) -> Build:
    """The same method; a network that diverged, and says NaN, says all classes are alike: it counts as chance."""

    def built(model: nn.Module) -> Callable[[Tensor], Tensor]:
        method = build(model)
        return lambda x: torch.nan_to_num(method(x), nan=0.0, posinf=0.0, neginf=0.0)

    return built


def _with_stored_statistics(make: Callable[..., Build]) -> dict[str, dict[str, Build]]:
    return {
        "plain": {},
        "rotation": {"TTT stored": surviving(lambda model: TTT(model, policy="source"))},
        "simclr": {"TTT++ stored": surviving(make(policy="source"))},
    }


def measure_condition(
    networks: Networks,
    compared: Mapping[str, Mapping[str, Build]],
    those: Patients,
    order: str,
    batch_size: int,
    store: ResultsStore,
    n_boot: int = 500,
) -> list[Row]:
    """All methods on all networks over one kind of stream, and their paired differences; [] when it is there."""
    about = {**those.about, "order": order, "batch_size": batch_size}
    if measured(store, DIFFERENCE, **about):
        return []
    rows, said = [], {}
    for net, by_seed in networks.items():
        results: dict[tuple[str, int], StreamResult] = {}
        options = {"batch_size": batch_size, "order": order, "store": store, "results": results}
        params = {**those.about, "network": net}
        rows += measure(TABLE, compared[net], by_seed, those.x, those.labels, params=params, **options)
        for (method, seed), result in results.items():
            said.setdefault((net, method), {})[seed] = in_order_of_images(result, those, order, seed)
    for net, method, other_net, other in COMPARED:
        if (net, method) not in said:
            continue
        after, before = said[net, method], said[other_net, other]
        answers = [[one[seed] for seed in sorted(after)] for one in (before, after)]
        found = is_real(*answers, those.labels, seeds=True, n_boot=n_boot)
        told = {"after": method, "network": net, "before": other, "network_before": other_net, **about}
        told |= {"images": len(those.labels)}
        bounds = {"difference": [found.interval.low, found.interval.high]}
        numbers = {"difference": found.interval.mean, "p": found.p}
        rows.append(store.append(DIFFERENCE, told, numbers, bounds, sorted(after)))
    return rows


def measure_dial(
    models: Mapping[int, nn.Module],
    make: Callable[..., Build],
    those: Patients,
    store: ResultsStore,
    factors: Sequence[float] = FACTORS,
    queues: Sequence[int] = QUEUES,
    batch_size: int = 16,
) -> list[Row]:
    """TTT++ with its alignment `factor` times as heavy, and queues of several lengths."""
    rows = []
    for factor, length in itertools.product(factors, queues):
        told = {**those.about, "factor": factor, "queue": length}
        if len(measured(store, DIAL, **told)) >= len(models):
            continue
        weights = {"align_features": 0.05 * factor, "align_projections": 0.2 * factor}
        # a queue that waits until it is full, and never is, lends nothing
        never_full = {"queue_length": len(those.labels) + 1, "wait_for_queue": True}
        build = {"TTT++": make(**weights, **({"queue_length": length} if length else never_full))}
        rows += measure(
            DIAL, build, models, those.x, those.labels, batch_size=batch_size, params=told, store=store
        )
    return rows


def measure_table(store: ResultsStore | None = None, n: int = 320, half: int = 160) -> list[Row]:
    """All that is not yet measured, what matters most first."""
    store, networks, make = store or ResultsStore(), trained(), plus_plus(source_images())
    at = {strength: patients(strength, 2 * n) for strength in (0.7, 0.35)}
    models, those, others = networks["simclr"], at[0.7].part(0, n), at[0.7].part(n, 2 * n)

    def conditions(asked: Sequence[tuple[float, str, int]]) -> list[Row]:
        rows = []
        for strength, order, size in asked:
            compared = methods(make, (order, size) == STORED)
            rows += measure_condition(networks, compared, at[strength].part(0, n), order, size, store)
            print(f"strength {strength}, {order}, batches of {size}: done", flush=True)
        return rows

    rows = conditions(CONDITIONS[:2])
    rows += measure_epochs(models, make, those, store)
    rows += measure_rates(models, make, those, others, patients(1.0, half, "val", "AB"), store)
    rows += measure_dial(models, make, those.part(0, n // 2), store)
    return rows + conditions(CONDITIONS[2:])


if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads(1)
    print(f"{len(measure_table())} rows written")
