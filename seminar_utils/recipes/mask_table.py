"""Entropy at every pixel (lesson 11, part 10): segmentation networks that adapt, on phantoms and on nuclei.

    python -m seminar_utils.recipes.mask_table

measures with three networks of each (`seminar pretrain fcn_small-phantoms-s0`, ...); a few minutes of one thread.
Rows go to the results store under the experiment "tent.pixels"; what is there already isn't run again. Nuclei do
not ship: they are measured where SEMINAR_DATA has them. The networks learnt on fluorescence, bright nuclei on dark
ground; in histology and bright-field images it is the other way round, so those come a second time with light and
dark exchanged: what a rule of one line does, before anything adapts. Settings are those of `tent_table`, at one
step a batch; Tent once more at ten times its rate. None was chosen by these numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..adaptation import Source, Tent
from ..adaptation.shot import SHOTIM
from ..checkpoints import load_checkpoint
from ..data import load
from ..evaluation.calibration import expected_calibration_error
from ..evaluation.intervals import bootstrap_interval
from ..evaluation.measure import Row
from ..evaluation.results import ResultsStore
from ..evaluation.shifts import apply_shift
from ..pretraining.masks import dice_of_each
from ..runtime import SeminarError, seed_everything
from .masks import mask_set
from .tent_table import SEEDS, Build, matches, methods

EXPERIMENT = "tent.pixels"
SIDE = 64
LOST = 0.05  # an image whose Dice falls by more than this was harmed


class Condition(NamedTuple):
    """What the clinic sends: a set and its domain, how it was changed, and how many images come at once."""

    data: str
    domain: str | float = ""  # of nuclei: how they were imaged; of phantoms: the strength of scanner C
    shift: str = "none"  # at severity 3, or "exchanged": light for dark
    batch_size: int = 16


STRENGTHS, DOMAINS, SHIFTS = (0.35, 0.7, 1.0), ("histology", "brightfield"), ("poisson_noise", "blur", "contrast")
CONDITIONS = [
    *(Condition("phantoms", strength) for strength in STRENGTHS),
    *(Condition("phantoms", 0.7, batch_size=size) for size in (4, 1)),
    *(Condition("nuclei", "fluorescence", shift) for shift in ("none", *SHIFTS)),
    *(Condition("nuclei", domain, shift) for domain in DOMAINS for shift in ("none", "exchanged")),
    *(Condition("nuclei", "histology", "exchanged", size) for size in (4, 1)),
]


def images_of(condition: Condition, limit: int = 160) -> tuple[Tensor, Tensor]:
    """Test images (N, 1, 64, 64) in [0, 1] and masks (N, 1, 64, 64). SeminarError where the data is not here."""
    if condition.data == "phantoms":
        found = load("phantoms", "test", n=limit, scanner="C", strength=condition.domain)
    else:
        found = load(condition.data, "test", domain=condition.domain)
    x, masks = mask_set(found).torch(SIDE)
    x, masks = x[:limit], masks[:limit]
    if condition.shift == "exchanged":
        return 1 - x, masks
    return (x if condition.shift == "none" else apply_shift(x, condition.shift, 3, seed=0)), masks


def source_images(data: str, count: int = 128) -> list[Tensor]:
    """Training images for the Fisher term of EATA, in batches: no masks are read."""
    options = {"n": count, "scanner": "AB"} if data == "phantoms" else {}
    return list(mask_set(load(data, "train", **options)).torch(SIDE)[0][:count].split(16))


def all_methods(batches: list[Tensor]) -> dict[str, Build]:
    """Those of lesson 11 that can answer at every pixel (LAME compares images), and SHOT."""
    some = {name: build for name, build in methods(batches).items() if name != "LAME"}
    return {**some, "Tent, rate x 10": lambda m: Tent(m, lr=1e-2), "SHOT": SHOTIM}


def order_of_images(count: int, seed: int) -> Tensor:
    """Which image comes when (N,)."""
    return torch.as_tensor(np.random.default_rng(seed).permutation(count))


def answers(method: Callable[[Tensor], Tensor], x: Tensor, batch_size: int, seed: int) -> Tensor:
    """The logits (N, 1, H, W) of images that come in an order fixed by `seed`, back in the images' own order."""
    order = order_of_images(len(x), seed)  # (N,)
    found = torch.cat([method(x[part]).detach() for part in order.split(batch_size)])
    return found[order.argsort()]


def numbers(logits: Tensor, masks: Tensor, source: np.ndarray) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Dice with its interval over the images, gain over the source, harm, calibration, how much is inside."""
    dice = dice_of_each(logits, masks).numpy()  # (N,)
    here = ~np.isnan(dice) & ~np.isnan(source)
    found = {"dice": bootstrap_interval(dice[here], statistic=np.mean)}
    found["over_source"] = bootstrap_interval((dice - source)[here], statistic=np.mean)
    inside = logits.sigmoid().flatten().double().numpy()  # (N * H * W,)
    probs = np.stack([1 - inside, inside], axis=1)  # (N * H * W, 2)
    metrics = {key: one.mean for key, one in found.items()} | {
        "harm": float((dice[here] < source[here] - LOST).mean()),
        "ece": expected_calibration_error(probs, masks.flatten().long().numpy()),
        "inside": float((logits > 0).float().mean()),
        "truly_inside": float(masks.mean()),
    }
    return metrics, {key: [one.low, one.high] for key, one in found.items()}


def measure_condition(
    condition: Condition,
    builds: dict[str, Build],
    model: nn.Module,
    seed: int,
    store: ResultsStore,
    limit: int = 160,
) -> list[Row]:
    """One row a method that the store does not hold yet."""
    held = {row["params"]["method"] for row in store.rows(experiment=EXPERIMENT, seed=seed)
            if matches(row, condition._asdict())}  # fmt: skip
    missing, rows = {name: build for name, build in builds.items() if name not in held}, []
    if not missing:
        return rows
    x, masks = images_of(condition, limit)
    source = dice_of_each(answers(Source(model), x, condition.batch_size, seed), masks).numpy()
    for name, build in missing.items():
        started = time.perf_counter()
        metrics, intervals = numbers(answers(build(model), x, condition.batch_size, seed), masks, source)
        told = {"method": name, "images": len(x), "network": f"fcn_small-{condition.data}", **condition._asdict()}
        rows.append(store.append(EXPERIMENT, told, metrics, intervals, seed, time.perf_counter() - started))
    return rows


def measure(store: ResultsStore, seeds: tuple[int, ...] = SEEDS) -> None:
    """All conditions; those whose data or network is not here are named and left out."""
    seed_everything(0)
    for condition in CONDITIONS:
        try:
            builds = all_methods(source_images(condition.data))
            for seed in seeds:
                model = load_checkpoint(f"fcn_small-{condition.data}-s{seed}")
                measure_condition(condition, builds, model, seed, store)
        except SeminarError as error:
            print(f"{condition} left out: {error}", flush=True)
        else:
            print(condition, flush=True)


if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads(1)
    measure(ResultsStore())
