"""How each shipped checkpoint is made: `seminar pretrain NAME` runs one recipe from images to card.

A name is `MODEL-DATA-sSEED`, for example `resnet_small-phantoms-s0`. Training resumes after a kill from
`runs/pretrain/NAME.pt`; the weights and their card go to `data/checkpoints/`, a row to the results store.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints import save_checkpoint
from .data import load
from .data.dataset import ImageSet
from .evaluation.intervals import bootstrap_interval
from .evaluation.metrics import accuracy, balanced_accuracy, expected_calibration_error
from .evaluation.results import ResultsStore, code_commit, versions
from .models import create_model
from .pretraining.supervised import TrainConfig, fit, predict
from .runtime import SeminarError, place_model, profile, runs_dir, seed_everything, unknown_name

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """Model, data and settings of one family of checkpoints; `size` is the side of the input in pixels."""

    model: str
    data: str
    size: int
    config: TrainConfig
    model_args: dict[str, Any] = field(default_factory=dict)
    load_args: dict[str, Any] = field(default_factory=dict)
    augment: Callable[[Tensor], Tensor] | None = None


def random_shift(x: Tensor, reach: int = 2) -> Tensor:
    """Move the whole batch (B, C, H, W) by up to `reach` pixels each way: patients never stand alike."""
    down, right = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4, mode="replicate")  # (B, C, H + 2 reach, W + 2 reach)
    return padded[..., down : down + height, right : right + width]  # (B, C, H, W)


PHANTOMS = {"scanner": "AB"}
SMALL_CNN = TrainConfig(epochs=12, lr=4e-3, batch_size=64, label_smoothing=0.0)  # stays calibrated at home
SMALL_VIT = TrainConfig(epochs=40, lr=1e-3, batch_size=64, warmup=3, label_smoothing=0.0)

RECIPES: dict[str, Recipe] = {
    "resnet_small-phantoms": Recipe(
        "resnet_small", "phantoms", 32, SMALL_CNN, {"num_classes": 6}, {**PHANTOMS, "n": 4000}
    ),
    "vit_tiny-phantoms": Recipe(
        "vit_tiny", "phantoms", 32, SMALL_VIT, {"num_classes": 6}, {**PHANTOMS, "n": 6000}, random_shift
    ),
    "resnet_small-pneumoniamnist": Recipe(
        "resnet_small", "pneumoniamnist", 28, SMALL_CNN, {"num_classes": 2}, {}, random_shift
    ),
    "vit_tiny-pneumoniamnist": Recipe(
        "vit_tiny", "pneumoniamnist", 28, SMALL_VIT, {"num_classes": 2, "img_size": 28}, {}, random_shift
    ),
}


def list_recipes() -> list[str]:
    """The names `seminar pretrain` takes (any seed works: -s0, -s1, ...)."""
    return [f"{family}-s{SEEDS[0]}" for family in RECIPES]


def parse_name(name: str) -> tuple[Recipe, int]:
    """`resnet_small-phantoms-s1` -> its recipe, with the seed in its settings. Raises SeminarError otherwise."""
    match = re.fullmatch(r"(.+)-s(\d+)", name)
    if not match or match[1] not in RECIPES:
        raise unknown_name("recipe", name, list_recipes())
    recipe, seed = RECIPES[match[1]], int(match[2])
    return replace(recipe, config=replace(recipe.config, seed=seed)), seed


def smoke_sized(recipe: Recipe) -> Recipe:
    """The recipe cut to seconds, to see that it runs; its weights are worth nothing."""
    config = replace(recipe.config, epochs=1)
    return replace(
        recipe, config=config, load_args={**recipe.load_args, **({"n": 128} if "n" in recipe.load_args else {})}
    )


def make_sets(recipe: Recipe) -> dict[str, ImageSet]:
    """The three splits; evaluation sets keep their own sizes."""
    sizes = {"train": recipe.load_args.get("n")}
    fixed = {key: value for key, value in recipe.load_args.items() if key != "n"}
    return {
        split: load(recipe.data, split, **fixed, **({"n": sizes[split]} if sizes.get(split) else {}))
        for split in ("train", "val", "test")
    }


def evaluate(model: nn.Module, test: ImageSet, size: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Accuracy, balanced accuracy and ECE on the test split, with bootstrap intervals over its images."""
    logits, labels = predict(model, test.loader(256, size=size))
    probs, labels = logits.softmax(dim=1).numpy(), labels.numpy()
    by_name = {
        "accuracy": lambda p, y: accuracy(y, p.argmax(1)),
        "balanced_accuracy": lambda p, y: balanced_accuracy(y, p.argmax(1)),
        "ece": lambda p, y: expected_calibration_error(p, y),
    }
    found = {key: bootstrap_interval(probs, labels, statistic=function) for key, function in by_name.items()}
    metrics = {key: interval.mean for key, interval in found.items()}
    return metrics, {key: [interval.low, interval.high] for key, interval in found.items()}


def pretrain(name: str, folder: Path | None = None, progress: bool = True) -> dict[str, Any]:
    """Run a recipe: train (or go on), evaluate once on the test split, write weights, card and row.

    Args: name: `MODEL-DATA-sSEED`; folder: where weights and card go (default `data/checkpoints`; needed in
    the smoke profile, which would spoil them). Returns the card. Raises SeminarError for an unknown name.
    """
    recipe, seed = parse_name(name)
    if profile() == "smoke":
        if folder is None:
            raise SeminarError(
                "the smoke profile trains for one epoch only: give a folder, or use the cpu profile"
            )
        recipe = smoke_sized(recipe)
    sets = make_sets(recipe)
    seed_everything(seed)
    channels = sets["train"].images.shape[-1]
    model_args = {**recipe.model_args, "in_chans": channels}
    model = place_model(create_model(recipe.model, **model_args))
    started = time.monotonic()
    resume = (folder or runs_dir() / "pretrain") / f"{name}.pt"
    history = fit(
        model,
        sets["train"],
        sets["val"],
        recipe.config,
        size=recipe.size,
        augment=recipe.augment,
        checkpoint=resume,
        progress=progress,
    )
    card = write_card(name, recipe, model_args, model, sets, history, time.monotonic() - started, folder)
    resume.unlink(missing_ok=True)
    return card


def write_card(name, recipe, model_args, model, sets, history, seconds, folder) -> dict[str, Any]:
    """Store the weights with a card, then measure the STORED weights (half precision) on the test split."""
    about = {
        "name": name,
        "command": f"seminar pretrain {name}",
        "model": recipe.model,
        "model_args": model_args,
        "input": f"float images (B, {model_args['in_chans']}, {recipe.size}, {recipe.size}) in [0, 1]",
        "size": recipe.size,
        "data": {"name": recipe.data, **recipe.load_args, "splits": {key: len(s) for key, s in sets.items()}},
        "data_licence": sets["train"].card.licence,
        "data_note": sets["train"].card.note,
        "licence": "MIT",
        "seed": recipe.config.seed,
        "config": asdict(recipe.config),
        "class_names": list(sets["train"].class_names),
    }
    stored = create_model(recipe.model, **model_args)
    stored.load_state_dict({key: _stored_precision(value) for key, value in model.state_dict().items()})
    metrics, intervals = evaluate(stored.eval(), sets["test"], recipe.size)
    best = max(history, key=lambda row: row["val_balanced_accuracy"])
    measured = {
        "metrics": metrics,
        "intervals": intervals,
        "val_balanced_accuracy": best["val_balanced_accuracy"],
        "best_epoch": best["epoch"],
        "selection": "best epoch on the validation split; the test split was scored once",
    }
    store = ResultsStore()
    params = {"checkpoint": name, "model": recipe.model, "data": recipe.data, "split": "test"}
    row = store.append("pretrain", params, metrics, intervals, seed=recipe.config.seed, seconds=seconds)
    card = {**about, **measured, "result_id": row["id"], "seconds": round(seconds, 1), "device": row["device"]}
    card = {**card, "versions": versions(), "commit": code_commit(), "history": history}
    save_checkpoint(model, name, card, folder)
    return card


def _stored_precision(value: Tensor) -> Tensor:
    """What a tensor is after storing: matrices pass through float16 (see `checkpoints.course.compress`)."""
    value = value.detach().cpu()
    return value.half().float() if value.is_floating_point() and value.ndim >= 2 else value
