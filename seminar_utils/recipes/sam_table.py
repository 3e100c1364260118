"""LiteMedSAM's real weights on objects with known masks, by box and by point, beside the filled box (lesson 07).

An image is encoded once and asked about all of its objects, by every kind of prompt. On one CPU thread the encoder
takes a second or two an image, so the long table is measured here once:

    python -m seminar_utils.recipes.sam_table

Rows go to the results store under the experiment "sam.table". White blood cells and nuclei do not ship: they are
left out where they are not found.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..checkpoints.medsam_lite import load_lite_medsam
from ..data import ImageSet, load
from ..evaluation.intervals import bootstrap_interval
from ..evaluation.measure import Row
from ..evaluation.prompted import box_prompts, dice_each, filled_boxes, point_prompts
from ..evaluation.results import ResultsStore
from ..models.predictor import SamPredictor
from ..runtime import SeminarError

EXPERIMENT = "sam.table"
SMALLEST = 30  # pixels: smaller pieces of a nuclei mask are left out
EACH = 5  # nuclei asked about in each image, the largest first
OFF = 0.1  # a careless box: every side moved by normal noise of this share of its length


class Objects(NamedTuple):
    """What to find: images, for each a boolean stack of its masks (M, H, W), and what each of them shows."""

    data: str
    images: np.ndarray  # (N, H, W, C)
    masks: list[np.ndarray]
    kinds: list[list[str]]  # M names for each image


def pieces(mask: np.ndarray) -> np.ndarray:
    """The largest connected pieces of a mask (H, W), (M, H, W) with M at most `EACH`; touching nuclei are one."""
    names, count = ndimage.label(mask)
    sizes = np.bincount(names.ravel(), minlength=count + 1)[1:]  # (count,)
    chosen = [i for i in np.argsort(-sizes, kind="stable")[:EACH] if sizes[i] >= SMALLEST]
    return np.stack([names == i + 1 for i in chosen]) if chosen else np.zeros((0, *mask.shape), bool)


def in_each(data: str, images: ImageSet, masks: Mapping[str, np.ndarray]) -> Objects:
    """By name one mask in every image, (N, H, W); what an image lacks is left out."""
    there = [[name for name in masks if masks[name][i].any()] for i in range(len(images))]
    stacks = [np.stack([masks[name][i] != 0 for name in names]) for i, names in enumerate(there)]
    return Objects(data, images.images, stacks, there)


def real_objects(limit: int | None = None) -> list[Objects]:
    """White blood cells, their nuclei, and nuclei of three kinds of microscopes; [] where the data is not here."""
    found = []
    try:
        for domain in ("d1", "d2"):
            cells = first(load("wbc", "test", domain=domain), limit)
            masks = {"white blood cell": cells.masks > 0, "its nucleus": cells.masks == 2}
            found.append(in_each(f"wbc {domain}", cells, masks))
        for domain in ("fluorescence", "histology", "brightfield"):
            nuclei = first(load("nuclei", "test", domain=domain), limit)
            stacks = [pieces(mask != 0) for mask in nuclei.masks]
            kinds = [["nuclei"] * len(stack) for stack in stacks]
            found.append(Objects(f"nuclei {domain}", nuclei.images, stacks, kinds))
    except SeminarError:
        return []
    return found


def phantom_objects(limit: int) -> list[Objects]:
    """The lesion of phantoms from scanners A and B, and from C."""
    sets = {
        "phantoms AB": load("phantoms", "test", n=limit, scanner="AB"),
        "phantoms C 0.7": load("phantoms", "test", n=limit, scanner="C", strength=0.7),
    }
    return [in_each(name, images, {"lesion": images.masks == 2}) for name, images in sets.items()]


def first(images: ImageSet, limit: int | None) -> ImageSet:
    """Every n-th image of a set, so that at most `limit` are left, spread over all of it."""
    if limit is None or limit >= len(images):
        return images
    return images.subset(np.linspace(0, len(images) - 1, limit).round().astype(int))


def careless(masks: np.ndarray, *seed: int) -> Tensor:
    """Boxes (M, 4) around masks (M, H, W), every side a little off; the seeds decide how."""
    boxes = box_prompts(masks)
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)  # (M, 4)
    noise = np.random.default_rng(seed).standard_normal(boxes.shape)
    limit = boxes.new_tensor([masks.shape[2] - 1, masks.shape[1] - 1]).repeat(2)
    moved = (boxes + OFF * sides * torch.from_numpy(noise).to(boxes)).clamp(min=0).minimum(limit)
    return torch.cat([moved[:, :2].minimum(moved[:, 2:]), moved[:, :2].maximum(moved[:, 2:])], dim=1)


Scores = dict[tuple[str, int], np.ndarray]  # (prompt, seed) -> Dice of the model and of the filled box (2, M)


def ask(predictor: SamPredictor, image: np.ndarray, masks: np.ndarray, seeds: Sequence[int], place: int) -> Scores:
    """One encoding, then all prompts for all objects (M, H, W); `place` numbers the image, for its own noise.

    Beside the point, which fills nothing, stands the tight box.
    """
    predictor.set_image(image)
    tight, size, found = box_prompts(masks), masks.shape[1:], {}
    boxes = {("tight box", 0): tight}
    boxes |= {("careless box", seed): careless(masks, seed, place) for seed in seeds}
    for key, some in boxes.items():
        answer = predictor.predict(boxes=some).masks[:, 0].numpy()  # (M, H, W)
        found[key] = np.stack([dice_each(masks, answer), dice_each(masks, filled_boxes(some, size))])
    answer = predictor.predict(points=point_prompts(masks), multimask=True).best().numpy()
    found["point", 0] = np.stack([dice_each(masks, answer), dice_each(masks, filled_boxes(tight, size))])
    return found


def measure_objects(
    predictor: SamPredictor,
    objects: Objects,
    experiment: str = EXPERIMENT,
    seeds: Sequence[int] = (0, 1, 2),
    store: ResultsStore | None = None,
    n_boot: int = 1000,
) -> list[Row]:
    """One row for each kind of object, prompt and seed: Dice of the model and of the filled box, and by how much
    the model is ahead, paired. Intervals resample images, not objects: those of one image are alike. No rows when
    fewer than two images hold an object.
    """
    store, started, scores = store or ResultsStore(), time.perf_counter(), {}
    some = [i for i, masks in enumerate(objects.masks) if len(masks)]
    if len(some) < 2:
        return []
    for i in some:
        for key, pair in ask(predictor, objects.images[i], objects.masks[i], seeds, i).items():
            scores.setdefault(key, []).append(pair)  # (2, M)
    image_of = np.concatenate([[i] * len(objects.masks[i]) for i in some])  # of every object
    kind_of = np.concatenate([objects.kinds[i] for i in some])
    seconds, rows = time.perf_counter() - started, []
    for (prompt, seed), parts in scores.items():
        for kind in dict.fromkeys(kind_of):
            mine = kind_of == kind
            model, box = np.concatenate(parts, axis=1)[:, mine]  # (objects,) each
            values = {"dice": model, "filled_box": box, "ahead": model - box}
            options = {"statistic": np.mean, "clusters": image_of[mine], "n_boot": n_boot}
            intervals = {name: bootstrap_interval(value, **options) for name, value in values.items()}
            about = {"method": "LiteMedSAM", "data": objects.data, "object": str(kind), "prompt": prompt}
            about |= {"images": len(set(image_of[mine])), "objects": int(mine.sum())}
            metrics = {name: one.mean for name, one in intervals.items()}
            bounds = {name: [one.low, one.high] for name, one in intervals.items()}
            rows.append(store.append(experiment, about, metrics, bounds, seed, seconds / len(scores)))
    return rows


def measure_table(limit: int = 30, store: ResultsStore | None = None) -> list[Row]:
    """All rows of the table: at most `limit` images of each set."""
    predictor = SamPredictor(load_lite_medsam())
    sets = [*real_objects(limit), *phantom_objects(limit)]
    return [row for objects in sets for row in measure_objects(predictor, objects, store=store)]


if __name__ == "__main__":
    from ..runtime import set_threads

    set_threads()
    print(f"{len(measure_table())} rows written")
