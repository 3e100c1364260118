"""The local file that remembers which exercises are solved: read, checked, replaced as a whole."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ..runtime import cache_dir

VERSION = 1
FRESH = {"state": "to do", "attempts": 0, "hints": 0, "last_wrong": ""}


def progress_path() -> Path:
    """Where progress is kept: SEMINAR_PROGRESS, else `progress.json` in the user's cache."""
    return Path(os.environ.get("SEMINAR_PROGRESS") or cache_dir() / "progress.json").expanduser()


class ProgressFile:
    """What is known of each exercise: state, wrong attempts, hints seen, print of the last wrong answer.

    With path None, and after the file turned out unwritable (told once), everything stays in memory.
    A file that cannot be understood is kept aside as `*.broken` and a new one begun.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}

    def entries(self) -> dict[str, dict[str, Any]]:
        """All entries by exercise id, read afresh, as another notebook may have written."""
        if self.path is not None:
            try:
                self._entries = _parse(self.path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                self._entries = {}
            except OSError as error:
                self._memory_only(error)
            except (ValueError, TypeError, KeyError):
                self._keep_aside()
        return self._entries

    def get(self, exercise_id: str) -> dict[str, Any]:
        """The entry of one exercise, complete with defaults."""
        return {**FRESH, **self.entries().get(exercise_id, {})}

    def update(self, exercise_id: str, **changes: Any) -> None:
        """Change one entry and replace the file in one step."""
        self._entries = {**self.entries(), exercise_id: {**self.get(exercise_id), **changes}}
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".progress-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, "exercises": self._entries}, file, indent=1, sort_keys=True)
            os.replace(name, self.path)
        except OSError as error:
            self._memory_only(error)

    def _memory_only(self, error: OSError) -> None:
        path, self.path = self.path, None
        warnings.warn(
            f"progress cannot be kept in {path} ({error.strerror}); it lasts until this kernel stops. "
            "SEMINAR_PROGRESS can name another file",
            stacklevel=4,
        )

    def _keep_aside(self) -> None:
        self._entries = {}
        aside, number = self.path.with_name(self.path.name + ".broken"), 1
        while aside.exists():
            aside, number = self.path.with_name(f"{self.path.name}.broken{number}"), number + 1
        try:
            os.replace(self.path, aside)
        except OSError as error:
            return self._memory_only(error)
        warnings.warn(
            f"the progress file {self.path} is damaged: kept as {aside.name}, a new one is begun",
            stacklevel=4,
        )


def _parse(text: str) -> dict[str, dict[str, Any]]:
    """Entries of a progress file. Raises ValueError, TypeError or KeyError when it is not one."""
    content = json.loads(text)
    if content["version"] != VERSION:
        raise ValueError(f"unknown version {content['version']!r}")
    entries = content["exercises"]
    for entry in entries.values():
        if any(type(entry[key]) is not type(default) for key, default in FRESH.items()):
            raise ValueError("an entry has a field of the wrong type")
        if entry["state"] not in ("to do", "right", "wrong"):
            raise ValueError(f"unknown state {entry['state']!r}")
    return entries
