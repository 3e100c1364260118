"""A benchmark as a file: SPEC.toml -> `Spec` -> its cells, all checked before anything runs.

    name = "first"                    # the store's experiment is bench.first
    images = 500                      # at most so many of each test set
    [[grid]]                          # every combination of these; several grids may join
    methods = ["source", "bn", {name = "tent", lr = 0.01},
               {name = "tent", selection = "oracle", candidates = [{lr = 1e-4}, {lr = 1e-2}]}]
    models = ["resnet_small"]         # an architecture, a family (resnet_small-phantoms) or one checkpoint
    data = [{name = "phantoms", scanner = "C"}, "pneumoniamnist"]
    shifts = ["none", "blur"]         # names of SHIFTS, or of SETS (which bring their severities)
    severities = [1, 3, 5]
    streams = ["iid", {order = "dirichlet", delta = 0.1}, {schedule = "gradual"}]
    batch_sizes = [64]
    resets = ["never", "episodic", 10]
    seeds = [0, 1, 2]                 # of training, where the model is no single checkpoint, and of the stream

Also at the top: resamples (of the bootstrap over images, default 200), source_images (for methods that need them,
default 256), checkpoints (a folder of your own weights) and imports (modules of yours that add to METHODS).
A selection (`selection.py`) is made within the cell: source_validation on the source's validation split,
held_out_shift on that split under `held_out = ["blur", 3]`, oracle on the test images and labels.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adaptation.registry import needs_source, preparation
from ..checkpoints.course import UNSHIPPED, checkpoint_card, list_checkpoints
from ..data import REAL_SHIFTS
from ..runtime import SeminarError, unknown_name
from .bench_cells import Cell, Setup
from .bench_entries import (
    Entry,
    as_count,
    as_list,
    check_keys,
    data_entry,
    method_entry,
    reset_entry,
    shift_entries,
    stream_entry,
)
from .shifts import COLOUR_ONLY

TOP = ("name", "images", "resamples", "source_images", "checkpoints", "imports", "grid")
DEFAULTS = {
    "methods": None,
    "models": None,
    "data": None,
    "shifts": ["none"],
    "severities": [],
    "streams": ["iid"],
    "batch_sizes": [64],
    "resets": ["never"],
    "seeds": [0],
}


@dataclass(frozen=True)
class Spec:
    """A checked benchmark: its name, its cells (no two alike), and what a process needs to run them."""

    name: str
    cells: tuple[Cell, ...]
    setup: Setup

    @property
    def experiment(self) -> str:
        """The experiment's name in the results store."""
        return f"bench.{self.name}"


def load_spec(path: str | Path) -> Spec:
    """Read and check a SPEC.toml. Raises SeminarError, naming the file, for whatever is wrong with it."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SeminarError(f"the spec {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SeminarError(f"{path.name} is not valid TOML: {error}") from error
    try:
        return parse_spec(table, path.parent)
    except SeminarError as error:
        raise SeminarError(f"{path.name}: {error}") from error


def parse_spec(table: Entry, folder: Path = Path()) -> Spec:
    """The spec in a dict, as TOML gives it; paths in it are relative to `folder`. Raises SeminarError."""
    check_keys(table, TOP, "entry of a spec")
    name = table.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise SeminarError(f"a spec needs a name of letters, digits, - and _, got {name!r}")
    images = as_count(table["images"], "images", 2) if "images" in table else None
    resamples = as_count(table.get("resamples", 200), "resamples", 2)
    source_images = as_count(table.get("source_images", 256), "source_images", 1)
    setup = _setup(table, folder)
    grids = table.get("grid")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise SeminarError("a spec needs at least one [[grid]] table")
    seen: dict[str, tuple[int, Cell]] = {}
    for number, grid in enumerate(grids, 1):
        for cell in _cells(grid, images, resamples, source_images, setup):
            if cell.key in seen:
                first = seen[cell.key][0]
                where = f"twice in grid {number}" if first == number else f"in grid {first} and in grid {number}"
                raise SeminarError(f"one cell comes {where}: {cell}")
            seen[cell.key] = (number, cell)
    return Spec(name, tuple(sorted((cell for _, cell in seen.values()), key=lambda cell: cell.place)), setup)


def _setup(table: Entry, folder: Path) -> Setup:
    imports = tuple(as_list(table.get("imports", [])))
    for module in imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SeminarError(f"imports = [{module!r}] can't be imported: {error}") from error
    own = table.get("checkpoints")
    if own is not None and not (isinstance(own, str) and (folder / own).is_dir()):
        raise SeminarError(f"checkpoints names a folder with weights and their cards, got {own!r}")
    return Setup(imports, (folder / own).resolve() if own else None)


def _cells(grid: Entry, images: int | None, resamples: int, source_images: int, setup: Setup) -> Iterator[Cell]:
    check_keys(grid, DEFAULTS, "entry of a grid")
    lists = {key: as_list(grid.get(key, default)) for key, default in DEFAULTS.items()}
    empty = [key for key, values in lists.items() if not values and key != "severities"]
    if empty:
        raise SeminarError(
            f"a grid needs at least one entry in each of methods, models, data; {empty[0]} has none"
        )
    methods = [method_entry(entry) for entry in lists["methods"]]
    data = [data_entry(entry) for entry in lists["data"]]
    streams = [stream_entry(entry) for entry in lists["streams"]]
    batches = [as_count(value, "batch_sizes", 1) for value in lists["batch_sizes"]]
    resets = [reset_entry(value) for value in lists["resets"]]
    seeds = [as_count(value, "seeds", 0) for value in lists["seeds"]]
    shifts = shift_entries(lists["shifts"], lists["severities"])
    if images is not None and max(batches) > images:
        raise SeminarError(f"a batch of {max(batches)} can't be filled: the spec takes at most {images} images")
    for model, one, seed in itertools.product(lists["models"], data, seeds):
        card = _checkpoint(model, one, seed, setup)
        conditions = _on_channels(shifts, card)
        for (shift, severity), stream, method in itertools.product(conditions, streams, methods):
            _check_combination(shift, severity, stream, method, card)
            needed = source_images if needs_source(method["name"]) else None
            about = (method, model, card["name"], card["sha256"][:12], one, shift, severity, stream)
            for batch, reset in itertools.product(batches, resets):
                yield Cell(*about, batch, reset, seed, images, resamples, needed)


def _on_channels(shifts: list[tuple[str, int, bool]], card: Entry) -> list[tuple[str, int]]:
    """The conditions for a model's images: on grey ones a set leaves its stains out."""
    grey = card["model_args"].get("in_chans", 3) == 1
    return [
        (shift, severity) for shift, severity, of_set in shifts if not (grey and of_set and shift in COLOUR_ONLY)
    ]


def _check_combination(shift: str, severity: int, stream: Entry, method: Entry, card: Entry) -> None:
    needed = preparation(method["name"])
    if needed == "prompts":
        raise SeminarError(f"{method['name']} tunes a PromptedCLIP's prompt; a benchmark's models have none")
    if needed and not card["model"].endswith(f"_{needed}"):
        raise SeminarError(
            f"{method['name']} needs a model that was prepared for it in training (resnet_small_{needed}); "
            f"{card['name']} is a {card['model']}: put the two into a grid of their own"
        )
    if shift in COLOUR_ONLY and card["model_args"].get("in_chans", 3) == 1:
        raise SeminarError(f"the shift {shift!r} needs colour images, {card['name']} takes grey ones")
    if "schedule" in stream:
        ramp = stream["conditions"] == "ramp"
        if ramp and shift == "none":
            raise SeminarError(
                f"the stream {stream['schedule']!r} goes up to the severity of a shift, and the shift is none: "
                "give shifts, or conditions = [[shift, severity], ...]"
            )
        if not ramp and shift != "none":
            raise SeminarError(f"a stream with conditions of its own can't come under the shift {shift!r} as well")
    if method.get("held_out") == [shift, severity]:
        raise SeminarError(f"held_out = {[shift, severity]} is the tested shift itself: that would be the oracle")


@functools.lru_cache(maxsize=512)
def _card(name: str, folder: Path | None) -> dict[str, Any]:
    return checkpoint_card(name, folder)


def _checkpoint(model: Any, data: Entry, seed: int, setup: Setup) -> dict[str, Any]:
    """The card of the classifier that a model's name, the data and the seed lead to."""
    folder = setup.checkpoints
    names = list_checkpoints() if folder is None else sorted(path.stem for path in folder.glob("*.safetensors"))
    if model in names:
        return _classifier(_card(model, folder))
    source = next(
        (s.source for s in REAL_SHIFTS.values() if data["name"] in [t for t, _ in s.targets.values()]), None
    )
    families = {name.rsplit("-s", 1)[0] for name in names}
    family = model if model in families else f"{model}-{source or data['name']}"
    if family not in families:
        _refuse_unmade(family, seed, folder)
        known = {*names, *families, *(name.split("-")[0] for name in families)}
        if model in {name.split("-")[0] for name in families}:
            raise SeminarError(
                f"no checkpoint of {model!r} was trained on {data['name']!r}; there are {sorted(families)}"
            )
        raise unknown_name("model", model, known)
    if f"{family}-s{seed}" not in names:
        seeds = sorted(name.rsplit("-s", 1)[1] for name in names if name.rsplit("-s", 1)[0] == family)
        raise SeminarError(
            f"{family!r} was trained with the seeds {', '.join(seeds)}; seed {seed} has no checkpoint"
        )
    return _classifier(_card(f"{family}-s{seed}", folder))


def _refuse_unmade(family: str, seed: int, folder: Path | None) -> None:
    """Raise SeminarError, with the command, for weights that everybody makes for himself."""
    if family in UNSHIPPED:
        raise SeminarError(
            f"there are no weights of {family!r} in {folder or 'data/checkpoints'}; they do not ship "
            f"({UNSHIPPED[family]}), this makes them: seminar pretrain {family}-s{seed}"
        )


def _classifier(card: dict[str, Any]) -> dict[str, Any]:
    if card["model_args"].get("num_classes", 0) < 2:
        raise SeminarError(f"{card['name']} is no classifier: a benchmark needs a model that gives logits")
    return card
