"""The long table of lesson 06: what is MAE's pre-training worth, by kNN, by a linear probe, by fine-tuning?

`python -m seminar_utils.recipes.mae_table` measures it on PneumoniaMNIST, minutes of one thread; its rows ship in
`data/results/mae_table.jsonl`. Fine-tuning is a fixed number of steps, with no choice of epoch or rate by any
labels: a clinic with fifty labelled images has no large validation split to choose on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import load_checkpoint
from ..data import ImageSet, load
from ..evaluation.intervals import bootstrap_interval
from ..evaluation.metrics import accuracy, balanced_accuracy, summary
from ..evaluation.probes import RawPixels, Row, label_fraction, measure_probes
from ..evaluation.results import ResultsStore
from ..models import create_model
from ..models.mae import encoder_of
from ..pretraining.supervised import TrainConfig, build_optimizer, learning_rate, predict
from .supervised import random_shift

EXPERIMENT = "mae.table"
STEPS = {0.01: 100, 0.1: 120, 1.0: 150}  # of fine-tuning, by the share of the labels
MORE_SEEDS = (0, 1, 2, 3, 4, 5)  # with 1%: which fifty images are labelled matters most there
LAYER_DECAY = 0.75  # for pre-trained weights; from scratch every layer has to learn at the full rate


def untrained(seed: int, **arguments: Any) -> nn.Module:
    """A MAE that never learnt anything, one for each seed, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model("mae_tiny", **arguments).eval()


def fine_tune(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    steps: int,
    lr: float = 1e-3,
    layer_decay: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
) -> nn.Module:
    """Train all of `model` in place on images (N, C, H, W) with labels (N,), for a fixed number of steps.

    AdamW, a tenth of the steps as warm-up, then half a cosine; classes are drawn equally often; batches are
    moved by up to two pixels. `layer_decay`: see `pretraining.supervised.layer_groups`.
    """
    config = TrainConfig(steps, lr, batch_size, warmup=steps / 10, layer_decay=layer_decay)
    optimizer = build_optimizer(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = 1.0 / torch.bincount(labels)[labels]  # (N,), an image of a class with n images has 1 / n
        model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step) * group.get("lr_scale", 1.0)
            chosen = torch.multinomial(weights, batch_size, replacement=True)  # (B,)
            loss = F.cross_entropy(model(random_shift(x[chosen])), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return model.eval()


Start = tuple[Callable[[int], nn.Module], float]  # seed -> a model with a fresh head; its layer decay


def starting_points(mae: nn.Module, num_classes: int, **arguments: Any) -> dict[str, Start]:
    """MAE's encoder and the same network with random weights; `arguments`: of the untrained `mae_tiny`."""

    def with_head(mae: nn.Module, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return encoder_of(mae, num_classes)

    def pretrained(seed: int) -> nn.Module:
        return with_head(mae, seed)

    def scratch(seed: int) -> nn.Module:
        return with_head(untrained(seed, **arguments), seed)

    return {"random init": (scratch, 1.0), "MAE": (pretrained, LAYER_DECAY)}


def measure_fine_tuning(
    experiment: str,
    starts: Mapping[str, Start],
    sets: Mapping[str, ImageSet],
    *,
    size: int,
    steps: Mapping[float, int],
    seeds: Sequence[int] = (0, 1, 2),
    params: Mapping[str, Any] | None = None,
    store: ResultsStore | None = None,
) -> list[Row]:
    """Fine-tune every start with every share of the labels (the keys of `steps`) and every seed.

    A seed decides which images are labelled, the head and the batches; both starts of a seed see the same
    images. Rows are like those of `measure_probes` (probe "fine-tune"), for `probe_table`.
    """
    store, rows = store or ResultsStore(), []
    x, labels = sets["train"].torch(size=size)
    for fraction, count in steps.items():
        for seed in seeds:
            few = label_fraction(sets["train"].labels, fraction, seed)
            for name, (build, decay) in starts.items():
                started = time.perf_counter()
                batch = 32 if len(few) < 256 else 64
                options = {"steps": count, "layer_decay": decay, "batch_size": batch, "seed": seed}
                net = fine_tune(build(seed), x[few], labels[few], **options)
                seconds = time.perf_counter() - started
                logits, truth = predict(net, sets["test"].loader(256, size=size))
                probs, truth = logits.softmax(dim=1).numpy(), truth.numpy()
                intervals = {}
                for key, metric in {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}.items():
                    one = bootstrap_interval(truth, probs.argmax(axis=1), statistic=metric, n_boot=200)
                    intervals[key] = [one.low, one.high]
                about = {"method": name, "fraction": fraction, "labelled": len(few), **(params or {})}
                about |= {"probe": "fine-tune", "images": len(truth), **options}
                rows.append(store.append(experiment, about, summary(probs, truth), intervals, seed, seconds))
    return rows


def measure_table(store: ResultsStore | None = None) -> list[Row]:
    """All rows of the table: raw pixels, random weights and MAE on PneumoniaMNIST, three seeds or six."""
    mae = load_checkpoint("mae_tiny-pneumoniamnist-s0")
    sets = {split: load("pneumoniamnist", split) for split in ("train", "val", "test")}
    classes = len(sets["test"].class_names)
    about = {"data": "pneumoniamnist", "mae": "mae_tiny-pneumoniamnist-s0"}
    nothing = {seed: encoder_of(untrained(seed, img_size=28)).eval() for seed in (0, 1, 2)}
    options = {"size": 28, "params": about, "store": store}
    starts = starting_points(mae, classes, img_size=28)
    tune, few = partial(measure_fine_tuning, EXPERIMENT, starts, sets), [0.01, 0.1]
    rows = tune(steps={0.01: STEPS[0.01]}, seeds=MORE_SEEDS, **options)
    rows += measure_probes(EXPERIMENT, {"MAE": encoder_of(mae).eval(), "random init": nothing}, sets, **options)
    pixels = {"raw pixels": RawPixels()}
    rows += measure_probes(EXPERIMENT, pixels, sets, fractions=few, **options)
    rows += measure_probes(EXPERIMENT, pixels, sets, fractions=[1.0], seeds=[0], **options)  # as any seed
    return rows + tune(steps={share: STEPS[share] for share in (0.1, 1.0)}, **options)


if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads()
    print(f"{len(measure_table())} rows written")
