"""One cell of a benchmark: everything that decides its numbers, and the key it is known by."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BENCH_VERSION = 1  # raise it when the numbers of a cell change, or what its key is made of
NEVER, EPISODIC = 0, 1


@dataclass(frozen=True)
class Cell:
    """One method on one model under one condition, with one seed.

    method: {"name", "settings"} and, unless by default, {"selection", "candidates", "held_out"}. model: as the
    spec names it, without the training seed where the seed picks the checkpoint; weights: the beginning of that
    checkpoint's sha256. data: {"name", "split", "options"}. stream: {"order", "options"}, or a schedule.
    reset: 0 never, 1 before every batch, N before every N-th. seed: of the stream, of the shift and of all that
    is drawn. images: at most so many; resamples: of the intervals; source_images: for a method that needs them.
    """

    method: Mapping[str, Any]
    model: str
    checkpoint: str
    weights: str
    data: Mapping[str, Any]
    shift: str
    severity: int
    stream: Mapping[str, Any]
    batch_size: int
    reset: int
    seed: int
    images: int | None
    resamples: int
    source_images: int | None = None

    @functools.cached_property
    def key(self) -> str:
        """16 hexadecimal digits: the hash of all parameters, whatever their order in the file."""
        parameters = {name: value for name, value in asdict(self).items() if name != "model"}
        return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def place(self) -> tuple:
        """Cells in this order find model, images and source predictions in the caches."""
        condition = (self.checkpoint, words(self.data), self.seed, self.shift, self.severity, words(self.stream))
        return (*condition, self.batch_size, self.reset, words(self.method))

    def params(self) -> dict[str, Any]:
        """What a row of the store says about the cell: words and numbers to group by, and its settings."""
        return {
            "method": method_name(self.method),
            "model": self.model,
            "checkpoint": self.checkpoint,
            "data": data_name(self.data),
            "shift": self.shift,
            "severity": self.severity,
            "stream": stream_name(self.stream),
            "batch_size": self.batch_size,
            "reset": {NEVER: "never", EPISODIC: "episodic"}.get(self.reset, self.reset),
            "selection": self.method.get("selection", "default"),
            "settings": self.method["settings"],
        }

    def __str__(self) -> str:
        said = {
            key: value for key, value in self.params().items() if key not in ("settings", "selection", "model")
        }
        return ", ".join(f"{key} {value}" for key, value in said.items()) + f", seed {self.seed}"


AXES = (
    "method",
    "model",
    "data",
    "shift",
    "severity",
    "stream",
    "batch_size",
    "reset",
)  # of a table, all but seeds


@dataclass(frozen=True)
class Setup:
    """What a process needs before it can run cells: modules to import, and the folder of the checkpoints."""

    imports: tuple[str, ...] = ()
    checkpoints: Path | None = None


def words(value: Mapping[str, Any]) -> str:
    """A nested dict as one text that can be sorted and hashed."""
    return json.dumps(value, sort_keys=True)


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    said = [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in sorted(options.items())]
    return " ".join([name, *said])


def method_name(method: Mapping[str, Any]) -> str:
    """The method with the settings that are not its defaults: "tent lr=0.01"; the rule that chose, if one did."""
    name = _with_options(method["name"], method["settings"])
    rule = method.get("selection", "default")
    return name if rule == "default" else f"{name} ({rule.replace('_', ' ')} of {len(method['candidates'])})"


def data_name(data: Mapping[str, Any]) -> str:
    """The data set with all its options that are no defaults: "phantoms scanner=C"."""
    from ..data import options_of

    usual = options_of(data["name"])
    options = {key: value for key, value in data["options"].items() if usual.get(key) != value}
    return _with_options(data["name"], options | ({} if data["split"] == "test" else {"split": data["split"]}))


def stream_name(stream: Mapping[str, Any]) -> str:
    """The order or schedule, with its options."""
    if "schedule" not in stream:
        return _with_options(stream["order"], stream["options"])
    options = {"order": stream["order"], "conditions": stream["conditions"]}
    said = [
        value
        for value, shown in (
            (f"order={options['order']}", options["order"] != "iid"),
            (f"rounds={stream['rounds']}", stream["schedule"] == "recurring"),
            ("whole_set", stream["whole_set"]),
            (_conditions_name(stream["conditions"]), stream["conditions"] != "ramp"),
        )
        if shown
    ]
    return " ".join([stream["schedule"], *said, *(f"{k}={v}" for k, v in sorted(stream["options"].items()))])


def _conditions_name(conditions: str | list) -> str:
    if isinstance(conditions, str):
        return conditions
    return "+".join(f"{shift} {severity}" if severity else shift for shift, severity in conditions)
