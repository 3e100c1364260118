"""The long tables of lesson 08: what do ten labelled images of scanner C change, and what do boxes give already?

`python -m seminar_utils.recipes.medical_table` measures them, minutes of one thread; the rows ship in
`data/results/medical_table.jsonl`. "medical.table": Dice by method, data and prompt; "medical.looseness": Dice of
LiteMedSAM and of the filled box by how loose the box is; "medical.pipeline": the same weights behind other
pipelines. The rates of the fine-tuning come from a few tries on validation images of scanner C (`--choose` makes
more of them), never from test images.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from ..adaptation.lora import add_lora, trainable_share
from ..checkpoints import load_checkpoint
from ..checkpoints.medsam_lite import load_lite_medsam
from ..data import ImageSet, load
from ..evaluation.intervals import bootstrap_interval
from ..evaluation.probes import Row
from ..evaluation.prompted import box_prompts, dice_by_prompt, dice_each, filled_boxes, point_prompts
from ..evaluation.reprompt import dice_by_looseness, encode_images
from ..evaluation.results import ResultsStore
from ..models.sam import Sam
from ..models.sam_transforms import LiteMedSamTransform, MedSamTransform, SamTransform
from ..pretraining.sam_training import SamConfig, fit_sam, tune_decoder
from ..runtime import SeminarError
from .sam import phantom_objects

EXPERIMENT, LOOSENESS, PIPELINE = "medical.table", "medical.looseness", "medical.pipeline"
CHECKPOINT = "sam_tiny_plain-phantoms-s0"  # the specialist: its training images are as scanners A and B give them
VARIED = "sam_tiny-phantoms-s0"  # the same, with varied brightness, contrast, blur and noise
STRENGTH, LABELLED = 0.7, 10
LOOSE = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.6)  # every side moves outwards by this share of the box's side
TUNING = {  # rates: a few tries on validation images of scanner C
    "decoder": SamConfig(epochs=60, batch_size=5, lr=1e-3, warmup=6, rounds=2, weight_decay=0.01),
    "LoRA": SamConfig(epochs=60, batch_size=5, lr=5e-3, warmup=6, rounds=2, weight_decay=0.01),
    "full": SamConfig(epochs=60, batch_size=5, lr=5e-4, warmup=6, rounds=2, weight_decay=0.01),
}
RANK = 4


class Task(NamedTuple):
    """Images (N, H, W, C) and the mask (N, H, W) of one object in each."""

    images: np.ndarray
    masks: np.ndarray

    def first(self, count: int) -> Task:
        """The first `count` of them."""
        return Task(self.images[:count], self.masks[:count])


def what_moves(model: Sam, method: str, rank: int = RANK) -> Sam:
    """A copy of the model in which only the method's part is trained: "decoder", "LoRA" or "full"."""
    model = copy.deepcopy(model)
    if method == "decoder":
        return tune_decoder(model)
    if method == "LoRA":
        add_lora(model.requires_grad_(False).image_encoder, ("qkv",), rank=rank)
        return model
    if method != "full":
        raise SeminarError(f"a method is decoder, LoRA or full, got {method!r}")
    return model.requires_grad_(True)


def ten_images(split: str, seed: int, labelled: int = LABELLED) -> ImageSet:
    """Labelled phantoms of scanner C; the seed decides which."""
    pool = load("phantoms", split, n=500, scanner="C", strength=STRENGTH)
    return pool.subset(np.random.default_rng(seed).choice(len(pool), labelled, replace=False))


def tune(model: Sam, method: str, images: ImageSet, seed: int, **changes: Any) -> Sam:
    """A copy of the model, fine-tuned on all of `images`; `changes` of the method's `SamConfig`."""
    config = SamConfig(**{**vars(TUNING[method]), "seed": seed, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # LoRA's A
        tuned = what_moves(model, method)
        fit_sam(tuned, phantom_objects(tuned, images), config, progress=False)
    return tuned.eval()


def lesions(split: str, count: int, **which: Any) -> Task:
    """Phantoms and their lesions."""
    found = load("phantoms", split, n=count, **which)
    return Task(found.images, (found.masks == 2).astype(np.uint8))


def phantom_tasks(count: int, split: str = "test") -> dict[str, Task]:
    """The lesions on the scanners of the training, and on the one that was never seen."""
    return {
        "A and B": lesions(split, count, scanner="AB"),
        f"C {STRENGTH:g}": lesions(split, count, scanner="C", strength=STRENGTH),
    }


def largest_part(masks: np.ndarray, least: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Of each mask (N, H, W) only its largest connected part, and where that has at least `least` pixels (N,)."""
    kept = np.zeros(masks.shape, np.uint8)
    for mask, out in zip(masks != 0, kept):
        parts, _ = ndimage.label(mask)
        sizes = np.bincount(parts.ravel())[1:]
        if len(sizes):
            out[parts == sizes.argmax() + 1] = 1
    return kept, kept.sum(axis=(1, 2)) >= least


def real_tasks(count: int) -> dict[str, Task]:
    """Blood cells and their nuclei in two laboratories, and the largest nucleus of images of other microscopes.

    Raises SeminarError when the files are not there (neither ships with the course).
    """
    tasks = {}
    for domain in ("d1", "d2"):  # d3 has no masks
        cells = load("wbc", "test", domain=domain)
        for what, masks in {"cell": cells.masks > 0, "nucleus": cells.masks == 2}.items():
            masks, good = largest_part(masks)
            tasks[f"WBC {domain} {what}"] = Task(cells.images[good], masks[good]).first(count)
    for domain in ("fluorescence", "histology", "brightfield"):
        found = load("nuclei", "test", domain=domain)
        masks, good = largest_part(found.masks)
        tasks[f"{domain} nucleus"] = Task(found.images[good], masks[good]).first(count)
    return {data: task for data, task in tasks.items() if len(task.images) > 1}  # one image has no interval


def dice_row(
    experiment: str,
    params: Mapping[str, Any],
    scores: np.ndarray,
    store: ResultsStore,
    *,
    beside: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    seconds: float | None = None,
) -> Row:
    """Mean Dice over the images (N,) with its bootstrap interval.

    beside: name -> Dice (N,) of something else on the same images; the difference is measured image by image.
    """
    differences = {name: scores - other for name, other in (beside or {}).items()}
    found = {
        name: bootstrap_interval(values, statistic=np.mean)
        for name, values in {"dice": scores, **differences}.items()
    }
    metrics = {name: one.mean for name, one in found.items()}
    intervals = {name: [one.low, one.high] for name, one in found.items()}
    return store.append(experiment, {**params, "images": len(scores)}, metrics, intervals, seed, seconds)


def measure_tuning(
    model: Sam,
    tasks: Mapping[str, Task],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = tuple(TUNING),
    experiment: str = EXPERIMENT,
    about: Mapping[str, Any] | None = None,
    store: ResultsStore | None = None,
    **changes: Any,
) -> list[Row]:
    """Every way to fine-tune on ten images of scanner C, by every seed, beside the filled box and the start."""
    store, rows, starts = store or ResultsStore(), [], {}

    def put(params: Mapping[str, Any], data: str, prompt: str, scores: np.ndarray, **options: Any) -> None:
        params = {**params, "data": data, "prompt": prompt, **(about or {})}
        rows.append(dice_row(experiment, params, scores, store, **options))

    for data, task in tasks.items():
        starts[data] = dice_by_prompt(model, *task)
        base = starts[data]["filled box"]
        put({"method": "filled box"}, data, "box", base)
        for prompt in ("box", "point"):
            put({"method": "as trained"}, data, prompt, starts[data][prompt], beside={"over_box": base})
    for seed in seeds:
        few = ten_images("train", seed)
        for method in methods:
            started = time.perf_counter()
            tuned, config = tune(model, method, few, seed, **changes), {**vars(TUNING[method]), **changes}
            options = {"seed": seed, "seconds": time.perf_counter() - started}
            told = {"method": method, "labelled": len(few), "moves": trainable_share(tuned)}
            told |= {key: config[key] for key in ("epochs", "batch_size", "lr", "rounds")}
            told |= {"rank": RANK} if method == "LoRA" else {}
            for data, task in tasks.items():
                scores, start = dice_by_prompt(tuned, *task), starts[data]
                for prompt in ("box", "point"):
                    beside = {"gain": start[prompt], "over_box": start["filled box"]}
                    put(told, data, prompt, scores[prompt], beside=beside, **options)
    return rows


def measure_lite(
    model: Sam, tasks: Mapping[str, Task], method: str = "LiteMedSAM", store: ResultsStore | None = None
) -> list[Row]:
    """One encoding of every image: Dice by box and by point, and by looser and tighter boxes."""
    store, rows, encoded, last = store or ResultsStore(), [], None, np.zeros(0)
    for data, (images, masks) in tasks.items():
        started, params = time.perf_counter(), {"data": data}
        if not np.array_equal(images, last):  # a cell and its nucleus lie in the same images
            encoded, last = encode_images(model, images), images
        boxes = box_prompts(masks)
        answers = {
            (method, "box"): encoded.segment(boxes=boxes),
            (method, "point"): encoded.segment(points=point_prompts(masks), multimask=True),
            ("filled box", "box"): filled_boxes(boxes, masks.shape[1:]),
        }
        seconds = time.perf_counter() - started
        base = dice_each(masks, answers["filled box", "box"])
        for (name, prompt), answer in answers.items():
            told = {**params, "method": name, "prompt": prompt, "beside": method}
            beside = {"over_box": base} if name == method else None
            rows.append(
                dice_row(EXPERIMENT, told, dice_each(masks, answer), store, beside=beside, seconds=seconds)
            )
        for name, found in {method: encoded, "filled box": None}.items():
            for share, scores in dice_by_looseness(found, masks, LOOSE).items():
                told = {**params, "method": name, "prompt": "box", "loosen": share, "beside": method}
                rows.append(dice_row(LOOSENESS, told, scores, store))
    return rows


def pipelines(model: Sam) -> dict[str, SamTransform]:
    """The model's own pipeline first, then those of other checkpoints, at the same size."""
    size, channels = model.transform.image_size, model.transform.in_chans
    others = {"SAM's": SamTransform, "MedSAM's": MedSamTransform, "LiteMedSAM's": LiteMedSamTransform}
    found = {name: kind(size, channels) for name, kind in others.items()}
    own = next(name for name, kind in found.items() if type(kind) is type(model.transform))
    return {own: model.transform, **{name: kind for name, kind in found.items() if name != own}}


def measure_pipelines(
    model: nn.Module,
    tasks: Mapping[str, Task],
    method: str,
    store: ResultsStore | None = None,
    experiment: str = PIPELINE,
) -> list[Row]:
    """The same weights and boxes, the image and the boxes prepared by each of the three pipelines."""
    store, rows = store or ResultsStore(), []
    for data, (images, masks) in tasks.items():
        boxes, own = box_prompts(masks), None
        for name, transform in pipelines(model).items():
            scores = dice_each(masks, encode_images(model, images, transform).segment(boxes=boxes))
            own = scores if own is None else own
            params = {"method": method, "data": data, "prompt": "box", "pipeline": name}
            rows.append(dice_row(experiment, params, scores, store, beside={"gain": own}))
    return rows


def choose(model: Sam, rates: Sequence[float] = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3), seed: int = 100) -> None:
    """Print Dice on validation images of scanner C for some rates of each method; the tables take the best."""
    task = phantom_tasks(100, "val")[f"C {STRENGTH:g}"]
    few = ten_images("train", seed)  # a seed that the table does not use
    for method in TUNING:
        for lr in rates:
            scores = dice_by_prompt(tune(model, method, few, seed, lr=lr), *task)
            print(f"{method:8s} lr {lr:g}: box {scores['box'].mean():.3f}, point {scores['point'].mean():.3f}")


def main() -> None:
    """Choose rates, or measure everything that can be measured here."""
    from ..runtime import set_threads

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--choose", action="store_true", help="only print validation scores of some rates")
    parser.add_argument("--only", choices=("tuning", "lite", "pipelines"), help="one of the parts")
    parser.add_argument("--images", type=int, default=300, help="test images of sam_tiny")
    parser.add_argument("--lite", type=int, default=16, help="images of each data set for LiteMedSAM")
    options = parser.parse_args()
    set_threads()
    if options.choose:
        return choose(load_checkpoint(CHECKPOINT))
    rows = []
    if options.only in (None, "tuning"):
        tasks = phantom_tasks(options.images)
        for name in (CHECKPOINT, VARIED):
            rows += measure_tuning(load_checkpoint(name), tasks, about={"checkpoint": name})
    if options.only != "tuning":
        lite, tasks = load_lite_medsam(), phantom_tasks(options.lite)
        try:
            tasks |= real_tasks(options.lite)
        except SeminarError as error:
            print(f"left out: {error}")
        rows += measure_lite(lite, tasks) if options.only != "pipelines" else []
        few = {data: task.first(8) for data, task in tasks.items() if data in ("A and B", "WBC d1 cell")}
        rows += measure_pipelines(lite, few, "LiteMedSAM")
    print(f"{len(rows)} rows written")


if __name__ == "__main__":
    main()
