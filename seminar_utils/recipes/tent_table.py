"""The remedies of lesson 11 on the streams that ruin Tent, label shift, and networks without BatchNorm.

    python -m seminar_utils.recipes.tent_table

takes some ten minutes of one quiet thread (with "norms" behind it: that part alone). Rows go to the results store;
what is there already isn't run again. "tent.table": methods by stream, three BatchNorm networks;
"tent.prevalence": what label shift does to the rare classes; "tent.norms": networks with LayerNorm or GroupNorm
and a BatchNorm twin, one training seed of each, their gain over the source with an interval over the images. The
settings are the papers' own or named below; none was chosen by these numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ..adaptation import BatchNormAdapt, Source, Tent
from ..adaptation.eata import EATA
from ..adaptation.lame import LAME
from ..adaptation.rdumb import TentReset
from ..adaptation.sar import SAR
from ..checkpoints import checkpoint_card, load_checkpoint
from ..data import ImageSet, load
from ..evaluation.differences import is_real
from ..evaluation.label_shift import resample_prevalence
from ..evaluation.measure import Row, image_intervals
from ..evaluation.metrics import balanced_accuracy, harm_rate, per_class_recall
from ..evaluation.results import ResultsStore
from ..evaluation.streams import StreamResult, run_stream, stream
from ..models.two_heads import TwoHeads
from ..runtime import SeminarError

STREAMS, PREVALENCE, NORMS = "tent.table", "tent.prevalence", "tent.norms"
SEEDS = (0, 1, 2)
STRENGTH = 0.7  # of scanner C, as in the rest of the lesson
SGD = 5e-3  # one rate for all that descend by SGD, EATA's for CIFAR-10: what differs is then the method
EVERY = 3  # batches between two resets; the paper's 1000 suit streams that are hundreds of times as long
SHARES = (1 / 6, 0.5, 0.8, 0.95)  # of the common class; the first is the balance of the training

Build = Callable[[nn.Module], Callable[[Tensor], Tensor]]


class Stream(NamedTuple):
    """How patients come, how fast the methods learn (times their own rate), and how often all come again."""

    batch_size: int = 64
    order: str = "iid"
    images: int = 320
    rate: float = 1.0
    passes: int = 1
    strength: float = STRENGTH
    only: tuple[str, ...] = ()  # the methods to run; none named: all


WEAK = ("source", "BN", "Tent", "LAME")  # where the source model is mostly right: what does LAME need?
OFTEN = ("source", "BN", "Tent", "Tent, SGD", "with reset", "EATA", "SAR")
TABLE = {  # name -> stream
    "mixed": Stream(),
    "sorted by class": Stream(order="class"),
    "batch of 4": Stream(batch_size=4, images=128),
    "batch of 1": Stream(batch_size=1, images=96),
    "mixed, weak shift": Stream(strength=0.35, only=WEAK),
    "sorted, weak shift": Stream(order="class", strength=0.35, only=WEAK),
    "batch of 4, rate x 20": Stream(batch_size=4, images=128, rate=20),
    "rate x 20": Stream(rate=20),
    "Dirichlet": Stream(order="dirichlet"),
    "rate x 300": Stream(rate=300),
    "ten passes": Stream(images=128, passes=10, only=OFTEN),
}
MIXED = {
    "mixed, weak shift": Stream(strength=0.35, images=512),
    "mixed": Stream(images=512),
    "mixed, full shift": Stream(strength=1.0, images=512),
}
OTHER = {
    "sorted by class": Stream(order="class", images=512),
    "sorted, weak shift": Stream(order="class", strength=0.35, images=512),
    "batch of 1": Stream(batch_size=1, images=96),
}
WITHOUT_BN = {  # network -> its normalisation, and its streams; a Swin is slow, and only a second witness
    "vit_tiny-phantoms-s0": ("LayerNorm", MIXED | OTHER),
    "swin_tiny-phantoms-s0": ("LayerNorm", {k: how._replace(only=("source", "Tent")) for k, how in MIXED.items()}),
    "resnet_small_rotation_gn-phantoms-s0": ("GroupNorm", MIXED | OTHER),
    # the same network and training, but for the normalisation: the control of the one above
    "resnet_small_rotation-phantoms-s0": (
        "BatchNorm",
        {k: how._replace(only=("source", "BN", "Tent")) for k, how in (MIXED | OTHER).items()},
    ),
}


def source_batches(count: int = 128) -> list[Tensor]:
    """Images of scanners A and B for the Fisher term of EATA: no labels."""
    return list(load("phantoms", "train", n=count, scanner="AB").torch(size=32)[0].split(64))


def methods(batches: list[Tensor], rate: float = 1.0) -> dict[str, Build]:
    """Name -> builder, for networks with BatchNorm: the source, the control, Tent, and what was proposed against
    its failures. `rate` multiplies every learning rate.
    """
    return {
        "source": Source,
        "BN": BatchNormAdapt,
        "BN, average": lambda m: BatchNormAdapt(m, "ema", batch_weight=0.1),
        "Tent": lambda m: Tent(m, lr=1e-3 * rate),
        "Tent, SGD": lambda m: Tent(m, lr=SGD * rate, optimizer="sgd"),
        "with reset": lambda m: TentReset(m, EVERY, lr=SGD * rate, optimizer="sgd"),
        "EATA": lambda m: EATA(m, lr=SGD * rate).fit_source(batches),
        "SAR": lambda m: SAR(m, lr=SGD * rate),
        "LAME": LAME,
    }


def methods_without_bn(batches: list[Tensor]) -> dict[str, Build]:
    """The same for LayerNorm and GroupNorm; by SGD at 0.001, which the paper of SAR uses for a ViT."""
    norms = ("ln", "gn")
    return {
        "source": Source,
        "Tent": lambda m: Tent(m, norms=norms),
        "Tent, SGD": lambda m: Tent(m, lr=1e-3, norms=norms, optimizer="sgd"),
        "EATA": lambda m: EATA(m, lr=1e-3).fit_source(batches),
        "SAR": lambda m: SAR(m, lr=1e-3),
        "LAME": LAME,
    }


def run(build: Build, model: nn.Module, x: Tensor, labels: Tensor, how: Stream, seed: int) -> StreamResult:
    """What a method says on a stream; of several passes, each in an order of its own, on the last."""
    method = build(model)
    for again in reversed(range(how.passes)):
        result = run_stream(method, stream(x, labels, how.batch_size, how.order, seed + 100 * again))
    return result


def rows_of_stream(
    experiment: str,
    about: Mapping[str, object],
    builds: Mapping[str, Build],
    model: nn.Module,
    how: Stream,
    seed: int,
    store: ResultsStore,
    over_source: bool = False,
) -> list[Row]:
    """One row a method that the store does not hold yet: metrics, harm, and with `over_source` the gain over the
    source model in balanced accuracy, paired image by image.
    """
    asked = {name: build for name, build in builds.items() if name in (how.only or builds)}
    about = {**about, **conditions(how)}
    held = {row["params"]["method"] for row in store.rows(experiment=experiment, seed=seed) if matches(row, about)}
    missing, rows = {name: build for name, build in asked.items() if name not in held}, []
    if not missing:
        return rows
    x, labels = load("phantoms", "test", n=how.images, scanner="C", strength=how.strength).torch(size=32)
    source = run(Source, model, x, labels, how._replace(passes=1), seed)
    for name, build in missing.items():
        started = time.perf_counter()
        result = source if build is Source else run(build, model, x, labels, how, seed)
        harm = harm_rate(result.labels, source.predictions, result.predictions)
        metrics, intervals = {**result.metrics(), "harm": harm}, image_intervals(result)
        if over_source:
            gain = is_real(source.predictions, result.predictions, result.labels, n_boot=500).interval
            metrics["over_source"], intervals["over_source"] = gain.mean, [gain.low, gain.high]
        told = {"method": name, "images": len(result.labels), **about}
        rows.append(store.append(experiment, told, metrics, intervals, seed, time.perf_counter() - started))
    return rows


def conditions(how: Stream) -> dict[str, object]:
    """What a row says of its stream."""
    said = {key: value for key, value in how._asdict().items() if key not in ("images", "only")}
    return {**said, "data": "phantoms", "scanner": "C"}


def matches(row: Row, about: Mapping[str, object]) -> bool:
    """Whether a row was measured under these conditions."""
    return all(row["params"].get(key) == value for key, value in about.items())


def label_shift_row(
    everyone: ImageSet,
    common: int,
    share: float,
    name: str,
    build: Build,
    model: nn.Module,
    seed: int,
    images: int,
) -> tuple[dict[str, object], dict[str, float]]:
    """Conditions and numbers of one ward in which `share` of the patients have the class `common`.

    `recall_common`; `recall_rare`: mean recall of the other classes; `said_common`: the share of patients whom the
    method gives the common class; `accuracy`, `balanced_accuracy`.
    """
    others = (1 - share) / (len(everyone.class_names) - 1)
    shares = [share if k == common else others for k in range(len(everyone.class_names))]
    x, labels = resample_prevalence(everyone, shares, n=images, seed=seed).torch(size=32)
    result = run_stream(build(model), stream(x, labels, 64, "iid", seed))
    recall = per_class_recall(result.labels, result.predictions, len(shares))  # (K,)
    metrics = {
        "accuracy": float((result.labels == result.predictions).mean()),
        "balanced_accuracy": balanced_accuracy(result.labels, result.predictions),
        "recall_common": float(recall[common]),
        "recall_rare": float(np.nanmean(np.delete(recall, common))),
        "said_common": float((result.predictions == common).mean()),
    }
    about = {"method": name, "share": round(share, 4), "common": everyone.class_names[common], "images": images}
    return about, metrics


def measure_streams(
    store: ResultsStore, seeds: tuple[int, ...] = SEEDS, table: Mapping[str, Stream] = TABLE
) -> None:
    """The rows of "tent.table"."""
    batches = source_batches()
    models = {seed: load_checkpoint(f"resnet_small-phantoms-s{seed}") for seed in seeds}
    for name, how in table.items():
        for seed, model in models.items():
            about = {"network": "resnet_small", "stream": name}
            rows_of_stream(STREAMS, about, methods(batches, how.rate), model, how, seed, store)
        print(name, flush=True)


def measure_prevalence(store: ResultsStore, seeds: tuple[int, ...] = SEEDS, images: int = 192) -> None:
    """The rows of "tent.prevalence": every class in turn is the common one."""
    everyone = load("phantoms", "test", n=2000, scanner="C", strength=STRENGTH)
    all_methods = methods([])
    for seed in seeds:
        model = load_checkpoint(f"resnet_small-phantoms-s{seed}")
        rows = store.rows(experiment=PREVALENCE, seed=seed)
        done = {tuple(row["params"][key] for key in ("method", "share", "common")) for row in rows}
        for share in SHARES:
            for common in range(len(everyone.class_names)):
                for name in ("source", "BN", "Tent"):
                    if (name, round(share, 4), everyone.class_names[common]) in done:
                        continue
                    started = time.perf_counter()
                    build = all_methods[name]
                    found = label_shift_row(everyone, common, share, name, build, model, seed, images)
                    store.append(PREVALENCE, *found, seed=seed, seconds=time.perf_counter() - started)
        print(f"seed {seed}: prevalence", flush=True)


def measure_without_bn(store: ResultsStore) -> None:
    """The rows of "tent.norms"; a network that is not here is left out."""
    batches = source_batches()
    for checkpoint, (norm, table) in WITHOUT_BN.items():
        try:
            checkpoint_card(checkpoint)
        except SeminarError:
            print(f"{checkpoint} is not here, left out", flush=True)
            continue
        model = load_checkpoint(checkpoint)
        model = model.backbone if isinstance(model, TwoHeads) else model  # the rotation head has no say here
        for name, how in table.items():
            about = {"network": checkpoint, "norm": norm, "stream": name}
            builds = (methods if norm == "BatchNorm" else methods_without_bn)(batches)
            rows_of_stream(NORMS, about, builds, model, how, 0, store, over_source=True)
            print(f"{checkpoint}: {name}", flush=True)


PARTS = {"streams": measure_streams, "prevalence": measure_prevalence, "norms": measure_without_bn}

if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads(1)
    for part in sys.argv[1:] or PARTS:
        PARTS[part](ResultsStore())
