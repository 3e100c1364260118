"""`seminar doctor`: what this installation has, and for what is missing the one command that gets it.

Every part is looked at on its own, so that the report also comes when something is broken: that is when
it is needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from . import __version__
from .runtime import SeminarError, cache_dir, free_cores, pick_device, profile, repository, seminar_data

ROOMS = (
    "models",
    "data",
    "checkpoints",
    "pretraining",
    "adaptation",
    "evaluation",
    "teaching",
    "recipes",
)
HASH_UP_TO = 200_000_000  # bytes; larger files are hashed on request only
INSTALL = "pip install -r requirements.lock && pip install --no-deps -e ."


def examine(hash_all: bool = False) -> dict[str, Any]:
    """Everything the doctor looks at, as plain values for JSON; never raises."""
    parts: dict[str, Callable[[], Any]] = {
        "course": _course,
        "packages": _packages,
        "torchvision_missing_operators": _missing_operators,
        "machine": _machine,
        "profile": profile,
        "rooms": lambda: {room: _attempt(lambda room=room: _imports(room)) for room in ROOMS},
        "checkpoints": lambda: _checkpoints(hash_all),
        "official_checkpoints": lambda: _official(hash_all),
        "data": lambda: _data(hash_all),
    }
    report = {name: _attempt(look) for name, look in parts.items()}
    report["missing"] = missing(report)
    report["ok"] = not any(item["needed"] for item in report["missing"])
    return report


def _attempt(look: Callable[[], Any]) -> Any:
    """What `look` finds, or the error as text: one broken part never hides the others."""
    try:
        return look()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _course() -> dict[str, Any]:
    from .evaluation.results import code_commit

    root = repository()
    return {"version": __version__, "commit": code_commit(), "checkout": str(root) if root else None}


def required_packages() -> list[Requirement]:
    """What the course needs, the test extra included, as its own metadata lists it."""
    return [Requirement(line) for line in metadata.requires("seminar-utils") or []]


def _packages() -> dict[str, str]:
    """Version by package; `absent`, or the version and what is needed instead, where it does not fit."""
    found = {"python": platform.python_version()}
    for needed in required_packages():
        try:
            version = metadata.version(needed.name)
            fits = needed.specifier.contains(version, prereleases=True)
            found[needed.name] = version if fits else f"{version}, needed {needed.specifier}"
        except metadata.PackageNotFoundError:
            found[needed.name] = "absent"
    return found


def _missing_operators() -> list[str]:
    from .torchvision_fix import missing_operators

    return missing_operators()


def _machine() -> dict[str, Any]:
    import psutil
    import torch

    device = pick_device()
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    memory = psutil.virtual_memory()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "interpreter": sys.executable,
        "device": str(device),
        "device_name": name,
        "cores": os.cpu_count(),
        "free_cores": free_cores(),
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "memory_gb": round(memory.total / 1e9, 1),
        "free_memory_gb": round(memory.available / 1e9, 1),
    }


def _imports(room: str) -> str:
    import_module(f"seminar_utils.{room}")
    if room == "teaching":
        import_module("seminar_utils.teaching.exercises")
    return "ok"


def _checkpoints(hash_all: bool) -> list[dict[str, Any]]:
    """The course's weights, each compared with what its card says."""
    from .checkpoints.course import checkpoint_card, checkpoint_dir, list_checkpoints

    found = []
    for name in list_checkpoints():
        entry = describe_file(checkpoint_dir() / f"{name}.safetensors", checkpoint_dir(), hash_all)
        expected = _attempt(lambda name=name: checkpoint_card(name)["sha256"])
        entry["state"] = "ok" if entry["sha256"] in (None, expected) else "not what its card describes"
        found.append(entry)
    return found


def _official(hash_all: bool) -> dict[str, str]:
    """Every official checkpoint: "present" and where, or "absent" and what brings it; lessons run without them."""
    from .checkpoints.download import check_file
    from .checkpoints.registry import find_file, list_pretrained, pretrained_info

    def look(name: str) -> str:
        entry, path = pretrained_info(name), find_file(name)
        if path is None:
            return f"absent   {entry.megabytes} MB, seminar fetch {name}"
        try:
            check_file(path, **(entry.checks if hash_all else {"size": entry.size}))
        except SeminarError as error:
            return f"present, but {error}"
        return f"present  {path}"

    return {name: look(name) for name in list_pretrained()}


def _data(hash_all: bool) -> dict[str, Any]:
    """The files of SEMINAR_DATA and of the cache."""
    places = {"SEMINAR_DATA": seminar_data(), "cache": cache_dir()}
    return {
        key: {"folder": str(folder) if folder else None, "files": _files(folder, hash_all) if folder else []}
        for key, folder in places.items()
    }


def _files(folder: Path, hash_all: bool) -> list[dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".part", ".lock"))
    return [describe_file(path, folder, hash_all) for path in paths[:200]]


def describe_file(path: Path, folder: Path, hash_all: bool = False) -> dict[str, Any]:
    """Name under `folder`, size, and sha256 (None for a large file unless `hash_all`)."""
    size = path.stat().st_size
    return {"file": path.relative_to(folder).as_posix(), "bytes": size, "sha256": _sha256(path, size, hash_all)}


def _sha256(path: Path, size: int, hash_all: bool) -> str | None:
    if size > HASH_UP_TO and not hash_all:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What is not there, whether the lessons need it, and the one command that gets it."""
    found = []

    def lacks(what: str, command: str, needed: bool) -> None:
        found.append({"what": what, "command": command, "needed": needed})

    if isinstance(report["profile"], dict):
        lacks(report["profile"]["error"], "unset SEMINAR_PROFILE", needed=True)
    wrong = [f"{name} {is_}" for name, is_ in report["packages"].items() if "absent" in is_ or "needed" in is_]
    if wrong or "error" in report["packages"]:
        lacks(f"packages: {'; '.join(wrong) or report['packages']['error']}", INSTALL, needed=True)
    for room, state in report["rooms"].items():
        if state != "ok":
            lacks(f"seminar_utils.{room} can't be imported ({state['error']})", INSTALL, needed=True)
    for name in _listed(_attempt(_wanted_checkpoints)):
        states = [item for item in _listed(report["checkpoints"]) if item["file"] == f"{name}.safetensors"]
        if not states or states[0]["state"] != "ok":
            lacks(f"weights {name}", f"seminar pretrain {name}", needed=True)
    if isinstance(report["data"], dict) and "error" in report["data"]:
        lacks(report["data"]["error"], "unset SEMINAR_DATA", needed=True)
    elif _attempt(_has_real_images) is not True:
        command = """python -c "import seminar_utils as s; s.load('pneumoniamnist')\""""
        lacks("real images (pneumoniamnist) for the sections 'On real images'", command, needed=False)
    return found


def _listed(part: Any) -> list[Any]:
    """The list, or [] where an error stands instead (it is reported by its room)."""
    return part if isinstance(part, list) else []


def _wanted_checkpoints() -> list[str]:
    from .recipes import list_recipes

    return list_recipes()


def _has_real_images() -> bool:
    from .data.medmnist import find_file

    return find_file("pneumoniamnist") is not None


def as_text(report: dict[str, Any]) -> str:
    """The report for a person: a heading per part, a line per value, and at the end what to do."""
    lines = []
    for part, value in report.items():
        if part not in ("missing", "ok"):
            lines += [part.replace("_", " "), *_indented(value), ""]
    lines.append("missing" if report["missing"] else "nothing is missing")
    for item in report["missing"]:
        lines += [f"  {item['what']}{'' if item['needed'] else ' (optional)'}", f"      get it: {item['command']}"]
    return "\n".join(lines)


def _indented(value: Any, depth: int = 1) -> list[str]:
    pad = "  " * depth
    if isinstance(value, dict) and "file" in value:
        digest = value["sha256"] or "not hashed, it is large: seminar doctor --hash-all"
        return [
            f"{pad}{value['file']:<44} {value['bytes'] / 1e6:8.2f} MB  {digest}  {value.get('state', '')}".rstrip()
        ]
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            nested = isinstance(item, (dict, list)) and item
            lines += [f"{pad}{key}", *_indented(item, depth + 1)] if nested else [f"{pad}{key:<20} {_word(item)}"]
        return lines
    if isinstance(value, list):
        return [line for item in value for line in _indented(item, depth)] or [f"{pad}none"]
    return [f"{pad}{_word(value)}"]


def _word(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)


def doctor(as_json: bool = False, hash_all: bool = False) -> int:
    """Print the report; returns 0 when nothing the lessons need is missing, else 1."""
    import json

    report = examine(hash_all)
    print(json.dumps(report, indent=1) if as_json else as_text(report))
    return 0 if report["ok"] else 1
