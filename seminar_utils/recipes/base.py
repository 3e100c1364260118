"""What all recipes share: sets, a model, a loop, an evaluation of the STORED weights, a card and a row."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..checkpoints import save_checkpoint
from ..checkpoints.course import write_atomically
from ..data import load
from ..data.dataset import ImageSet
from ..evaluation.results import ResultsStore, code_commit, versions
from ..models import create_model
from ..runtime import place_model, runs_dir, seed_everything

SEEDS = (0, 1, 2)
Sets = dict[str, ImageSet]
Measured = tuple[dict[str, float], dict[str, list[float]]]  # metrics, and their 95% intervals


def first(images: ImageSet, count: int) -> ImageSet:
    """The first `count` images, or all."""
    return images.subset(range(min(count, len(images))))


@dataclass(frozen=True)
class Recipe:
    """Model, data and settings of one family of checkpoints; `size` is the side of the input in pixels.

    A family writes `train` (the loop), `evaluate` (what its card reports) and `choice` (which epoch's weights).
    """

    model: str
    data: str
    size: int
    config: Any
    model_args: dict[str, Any] = field(default_factory=dict)
    load_args: dict[str, Any] = field(default_factory=dict)

    def train(self, model: nn.Module, sets: Sets, resume: Path, progress: bool) -> list[dict[str, float]]:
        """Train in place, resumable from the file `resume`; returns the history, one row an epoch."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, sets: Sets) -> Measured:
        """Metrics on the test split, with their intervals."""
        raise NotImplementedError

    def choice(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """How the weights were chosen among the epochs, in the card's words."""
        return {"selection": "the last epoch; the test split was scored once"}

    def outputs(self, arguments: dict[str, Any], sets: Sets) -> list[list[int]]:
        """Shapes of what the model returns for an image, without the batch: here one logit a class."""
        return [[len(sets["train"].class_names)]]

    def extras(self, sets: Sets) -> dict[str, Any]:
        """What else a card must say so that the weights can be used."""
        return {}

    def arguments(self, sets: Sets) -> dict[str, Any]:
        """What `create_model` gets: `model_args`, and what the data decides."""
        return {**self.model_args, "in_chans": sets["train"].images.shape[-1]}

    def make_sets(self) -> Sets:
        """The three splits; `n` is the number of training images, evaluation sets keep their own sizes."""
        fixed = {key: value for key, value in self.load_args.items() if key != "n"}
        train = load(self.data, "train", **self.load_args)
        return {"train": train, **{split: load(self.data, split, **fixed) for split in ("val", "test")}}

    def smoke_sized(self) -> Recipe:
        """The recipe cut to seconds, to see that it runs; its weights are worth nothing."""
        fewer = {**self.load_args, **({"n": 128} if "n" in self.load_args else {})}
        return replace(self, config=replace(self.config, epochs=1), load_args=fewer)


def run_recipe(name: str, recipe: Recipe, folder: Path | None, progress: bool) -> dict[str, Any]:
    """Train, store, measure; returns the card. A run that was killed goes on from its resume file."""
    sets = recipe.make_sets()
    seed_everything(recipe.config.seed)
    arguments = recipe.arguments(sets)
    model = place_model(create_model(recipe.model, **arguments))
    started = time.monotonic()
    resume = (folder or runs_dir() / "pretrain") / f"{name}.pt"
    sessions_file = resume.with_name(f"{name}.sessions.json")
    try:
        history = recipe.train(model, sets, resume, progress)
    finally:
        sessions = add_session(sessions_file, time.monotonic() - started)
    seconds = sum(sessions)
    about = {**describe(name, recipe, arguments, sets), **recipe.choice(history)}
    stored = create_model(recipe.model, **arguments)
    stored.load_state_dict({key: _stored_precision(value) for key, value in model.state_dict().items()})
    metrics, intervals = recipe.evaluate(stored.eval(), sets)
    params = {"checkpoint": name, "model": recipe.model, "data": recipe.data, "split": "test"}
    row = ResultsStore().append("pretrain", params, metrics, intervals, seed=recipe.config.seed, seconds=seconds)
    measured = {"metrics": metrics, "intervals": intervals, "result_id": row["id"], "seconds": round(seconds, 1)}
    run = {"device": row["device"], "versions": versions(), "commit": code_commit(), "history": history}
    card = {**about, **measured, **run}
    save_checkpoint(model, name, card, folder)
    for file in [*resume.parent.glob(f"{name}.*pt"), sessions_file]:  # a recipe of two rounds has two resume files
        file.unlink()
    return card


def add_session(path: Path, seconds: float) -> list[float]:
    """Remember how long this session trained, beside the resume file; returns the seconds of all sessions so far.

    A run that is interrupted and goes on took the sum. (A session that the system kills outright is not told.)
    """
    earlier = json.loads(path.read_text()) if path.exists() else []
    sessions = [*earlier, round(seconds, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(sessions).encode())
    return sessions


def describe(name: str, recipe: Recipe, arguments: dict[str, Any], sets: Sets) -> dict[str, Any]:
    """The part of a card that is known before training."""
    train = sets["train"]
    return {
        "name": name,
        "command": f"seminar pretrain {name}",
        "model": recipe.model,
        "model_args": arguments,
        "input": f"float images (B, {arguments['in_chans']}, {recipe.size}, {recipe.size}) in [0, 1]",
        "outputs": recipe.outputs(arguments, sets),
        "size": recipe.size,
        "data": {"name": recipe.data, **recipe.load_args, "splits": {key: len(s) for key, s in sets.items()}},
        "data_licence": train.card.licence,
        "data_note": train.card.note,
        "licence": "MIT",
        "seed": recipe.config.seed,
        "config": asdict(recipe.config),
        "class_names": list(train.class_names),
        **recipe.extras(sets),
    }


def _stored_precision(value: Tensor) -> Tensor:
    """What a tensor is after storing: matrices pass through float16 (see `checkpoints.course.compress`)."""
    value = value.detach().cpu()
    return value.half().float() if value.is_floating_point() and value.ndim >= 2 else value
