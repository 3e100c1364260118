"""The long table of lesson 13: neighbour labels, their controls and their ablations on scanner C of the phantoms.

    python -m seminar_utils.recipes.neighbor_table

measures two orders of the patients and three batch sizes with three networks, at strength 0.7 all methods, at
0.35 the main ones: minutes of one thread. A run is written as soon as it is measured, and a second call goes on
with the missing ones; remove the file to begin anew. A row holds, beside the usual, the answer of every patient
in the order of the images (`answers`, `truth`: one digit a patient), so that any two methods can be compared
patient by patient (`difference`).

Two families of networks. Meta-trained ones (`resnet_small_neighbors-phantoms-s0..2`) carry all methods and
ablations but one. "No meta" needs networks that never practised the step: the plain ones
(`resnet_small-phantoms-s0..2`: the same data, classifier, settings and seeds, stage (a) alone), theta left as it
is, with a label network that learns to name the classes from neighbours, and is never asked whether its labels
make a good step (`name_classes`). They have a control of their own.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import kl_divergence

from ..adaptation import BatchNormAdapt, NeighborLabels, Source, Tent
from ..adaptation.norm import set_norm_policy
from ..checkpoints import load_checkpoint
from ..data import ImageSet, load
from ..evaluation.differences import Difference, is_real
from ..evaluation.measure import Row, image_intervals
from ..evaluation.metrics import harm_rate
from ..evaluation.results import ResultsStore, user_results
from ..evaluation.streams import StreamResult, order_of, run_stream, stream
from ..models.neighbor_labels import NeighborLabelNet, sample, with_label_network
from ..pretraining.neighbor_labels import MetaConfig, endless, split_domains
from ..runtime import SeminarError

EXPERIMENT = "neighbors.table"
SEEDS, IMAGES = (0, 1, 2), 320
ORDERS, BATCH_SIZES = ("iid", "class"), (64, 16, 4)

Builder = Callable[[nn.Module], Callable]
META: dict[str, Builder] = {
    "source": Source,
    "BN": BatchNormAdapt,
    "Tent": Tent,
    "hard pseudo-labels": partial(NeighborLabels, labels="own"),
    "neighbour labels": NeighborLabels,
    "w at its mean": partial(NeighborLabels, labels="mean"),
    "eight draws": partial(NeighborLabels, samples=8),
    "made hard": partial(NeighborLabels, labels="hard"),
    "no neighbours": partial(NeighborLabels, neighbors=False),
}
PLAIN: dict[str, Builder] = {
    "source (no meta)": Source,
    "BN (no meta)": BatchNormAdapt,
    "no meta": NeighborLabels,
}


def name_classes(
    model: NeighborLabelNet, train: ImageSet, config: MetaConfig | None = None, size: int = 32
) -> NeighborLabelNet:
    """Train phi in place to name classes from neighbours, without any inner step; theta stands still.

    The loss is stage (e) and the divergence of `pretraining.neighbor_labels`, cross-entropy of the drawn labels
    + kl * KL(q || p), with as many batches and the same rate as in meta-training; theta normalises by the batch,
    as at test time. Returns the model in eval mode.
    """
    config = config or MetaConfig()
    parts = split_domains(train, config.batch_size)
    streams = [endless(part, config.batch_size, config.seed + i, {"size": size}) for i, part in enumerate(parts)]
    theta, phi = copy.deepcopy(model.backbone).eval(), model.label_network
    set_norm_policy(theta, "batch")
    optimizer = torch.optim.AdamW(phi.parameters(), lr=config.label_lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(config.epochs * config.steps):
        x, y = next(streams[step % len(streams)])
        with torch.no_grad():
            features = theta.embed(x)  # (B, D)
            probs = theta.fc(features).softmax(dim=1)  # (B, K)
        prior = phi.latent(features, probs)
        posterior = phi.latent(features, F.one_hot(y, phi.num_classes).to(probs))
        wrong = F.nll_loss(phi.labels(features, sample(posterior, generator)), y)
        loss = wrong + config.kl * kl_divergence(posterior, prior).sum(dim=1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()


def plain_network(seed: int) -> NeighborLabelNet:
    """The network of "no meta": a shipped classifier with a label network trained here, in seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = with_label_network(load_checkpoint(f"resnet_small-phantoms-s{seed}"))
    return name_classes(model, load("phantoms", "train", n=4000, scanner="AB"), MetaConfig(seed=seed))


def meta_network(seed: int) -> nn.Module:
    """The network that was meta-trained with its label network."""
    return load_checkpoint(f"resnet_small_neighbors-phantoms-s{seed}")


MAIN = ("source", "BN", "Tent", "hard pseudo-labels", "neighbour labels")
Family = tuple[Mapping[str, Builder], Callable[[int], nn.Module], float]
FAMILIES: dict[str, Family] = {  # methods, networks by seed, strength of scanner C
    "plain": (PLAIN, plain_network, 0.7),
    "meta": (META, meta_network, 0.7),
    "mild": ({name: META[name] for name in MAIN}, meta_network, 0.35),
}


def in_image_order(result: StreamResult, labels: np.ndarray, order: str, seed: int) -> np.ndarray:
    """The predictions (N,) of a stream that showed every image once, back in the order of the images."""
    predictions = np.empty(len(labels), dtype=int)
    predictions[order_of(labels, order, seed)] = result.predictions
    return predictions


def as_digits(classes: np.ndarray) -> str:
    """Classes (N,) below ten as one digit each."""
    return "".join(map(str, classes.tolist()))


def from_digits(digits: str) -> np.ndarray:
    """The classes (N,) again."""
    return np.array([int(digit) for digit in digits])


def measure_family(
    methods: Mapping[str, Builder],
    build_model: Callable[[int], nn.Module],
    patients: ImageSet,
    *,
    strength: float,
    seed: int,
    store: ResultsStore,
    orders: Sequence[str] = ORDERS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[Row]:
    """The missing runs of one network on patients from scanner C at that strength.

    The source model's answers are the first run of a condition: harm is measured against them.
    """
    rows, model, (x, y) = [], None, patients.torch(size=32)
    labels = y.numpy()
    for order, batch_size in product(orders, batch_sizes):
        about = {"data": "phantoms", "scanner": "C", "strength": strength, "order": order}
        about |= {"batch_size": batch_size, "images": len(labels)}
        before = None
        for name, build in methods.items():
            done = stored_runs(store, method=name, seed=seed, **about)
            if not done:
                model = model or build_model(seed)
                started = time.perf_counter()
                result = run_stream(build(model), stream(x, y, batch_size, order, seed))
                answers, seconds = in_image_order(result, labels, order, seed), time.perf_counter() - started
                metrics = {
                    **result.metrics(),
                    "harm": harm_rate(labels, answers if before is None else before, answers),
                }
                more = {"answers": as_digits(answers), "truth": as_digits(labels)}
                about_run = ({"method": name, **about}, metrics, image_intervals(result), seed, seconds, more)
                done = [store.append(EXPERIMENT, *about_run)]
                rows += done
            before = from_digits(done[-1]["answers"]) if before is None else before
    return rows


def stored_runs(store: ResultsStore, seed: int | None = None, **params: Any) -> list[Row]:
    """The table's rows with these params, oldest first."""
    where = {f"params.{key}": value for key, value in params.items()}
    return store.rows(experiment=EXPERIMENT, **where, **({} if seed is None else {"seed": seed}))


def measure_table(
    store: ResultsStore | None = None,
    n: int = IMAGES,
    seeds: Sequence[int] = SEEDS,
    families: Sequence[str] = tuple(FAMILIES),
) -> list[Row]:
    """All runs that the store (by default your own file of rows) does not hold yet."""
    store = store or ResultsStore(user_results())
    rows = []
    for family, seed in product(families, seeds):
        methods, build_model, strength = FAMILIES[family]
        patients = load("phantoms", "test", n=n, scanner="C", strength=strength)
        rows += measure_family(methods, build_model, patients, strength=strength, seed=seed, store=store)
        print(f"{family} networks, seed {seed}: done", flush=True)
    return rows


# ---- reading the table ------------------------------------------------------------------------------


def condition(rows: Sequence[Row], **params: Any) -> list[Row]:
    """The rows of one condition (strength=0.7, order="iid", batch_size=64). Raises SeminarError for none."""
    found = [row for row in rows if all(row["params"][key] == value for key, value in params.items())]
    if not found:
        raise SeminarError(f"the table of neighbour labels holds no row with {params}; run the recipe first")
    return found


def difference(rows: Sequence[Row], over: str, of: str, n_boot: int = 400) -> Difference:
    """Balanced accuracy of method `of` minus that of `over`, by the rows of one condition.

    Paired patient by patient and seed by seed; the interval counts both the chance of the training seeds and
    that of the patients (`evaluation.hierarchy`). Raises SeminarError unless both were run with the same seeds.
    """
    answers = {(row["params"]["method"], row["seed"]): from_digits(row["answers"]) for row in rows}
    seeds = {name: sorted(seed for method, seed in answers if method == name) for name in (over, of)}
    if len(seeds[over]) < 2 or seeds[over] != seeds[of]:
        raise SeminarError(f"a paired difference needs the same two or more seeds of both methods, got {seeds}")
    before, after = ([answers[name, seed] for seed in seeds[over]] for name in (over, of))
    return is_real(before, after, from_digits(rows[0]["truth"]), seeds=True, n_boot=n_boot)


def main() -> None:
    """Measure what is missing."""
    from ..runtime import set_threads

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="networks by training seed")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    options = parser.parse_args()
    set_threads()
    print(f"{len(measure_table(seeds=options.seeds, families=options.families))} rows written")


if __name__ == "__main__":
    main()
