"""The official checkpoints: where each one is, how to know it, what it needs. The table is `registry.toml`.

`fetch_pretrained(name)` brings a file into the cache (or finds it where you put it), checked; `pretrained.py`
makes a model of it. A lab can serve the files itself: SEMINAR_MIRROR names a folder on the web that is asked
before the official address, and is believed no more than that one: size and hash are checked all the same.
"""

from __future__ import annotations

import importlib.util
import os
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..runtime import SeminarError, cache_dir, seminar_data, unknown_name
from .download import check_file, fetch


@dataclass(frozen=True)
class Checkpoint:
    """One official file. title, paper (arXiv), licence, megabytes (about) are for people; the rest is used.

    model, args: what `create_model` builds for it. file: its name in the cache. urls: addresses, tried in order;
    page: where a person finds it if there is no address; package: a folder of an installed package that has it.
    md5, sha256: as published, whole or the first digits, which tell damage but not forgery; size: exact number of
    bytes, if known.
    format: "torch" (opened with weights_only), or "torchscript" (OpenAI's, opened after the whole sha256 matched).
    unwrap: what may lie around the weights, from the outside in: a key, or with a dot at its end a prefix of all
    names; drop: beginnings of names that the model does not have; converter: see `pretrained.CONVERTERS`.
    transform: how images are prepared, see `preprocess.py`, or the name of one of SAM's pipelines.
    vocabulary: address of the text tower's list of tokens.
    """

    name: str
    title: str
    paper: str
    model: str
    file: str
    urls: tuple[str, ...]
    megabytes: int
    licence: str
    transform: dict[str, Any] | str
    args: dict[str, Any] = field(default_factory=dict)
    page: str | None = None
    package: str | None = None
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    format: str = "torch"
    unwrap: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    converter: str = "same"
    vocabulary: str | None = None

    @property
    def checks(self) -> dict[str, Any]:
        """What `download.fetch` compares."""
        return {"md5": self.md5, "sha256": self.sha256, "size": self.size}


@cache
def registry() -> dict[str, Checkpoint]:
    """All official checkpoints by name, as `registry.toml` lists them."""
    table = tomllib.loads(Path(__file__).with_name("registry.toml").read_text(encoding="utf-8"))
    lists = ("urls", "unwrap", "drop")
    return {
        name: Checkpoint(name, **{key: tuple(value) if key in lists else value for key, value in entry.items()})
        for name, entry in table.items()
    }


def list_pretrained() -> list[str]:
    """The names that `load_pretrained` and `seminar fetch` know."""
    return list(registry())


def pretrained_info(name: str) -> Checkpoint:
    """What is known about an official checkpoint. Raises SeminarError for an unknown name, with the nearest."""
    if name not in registry():
        raise unknown_name("official checkpoint", name, registry())
    return registry()[name]


def cached_file(entry: Checkpoint) -> Path:
    """Where a download of it goes, and where to put the file by hand."""
    return cache_dir() / "checkpoints" / entry.file


def find_file(name: str) -> Path | None:
    """Where the file lies on this machine, or None: SEMINAR_DATA/weights, the cache, a package that has it."""
    entry, given = pretrained_info(name), seminar_data()
    places = [given / "weights" / entry.file if given else None, cached_file(entry), _in_package(entry)]
    return next((place for place in places if place and place.is_file()), None)


def _in_package(entry: Checkpoint) -> Path | None:
    """The file inside an installed package, which is not imported for that."""
    if entry.package is None:
        return None
    package, _, folder = entry.package.partition("/")
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / folder / entry.file if found and found.origin else None


def addresses(file: str, *official: str) -> list[str]:
    """Where to ask for a file: the lab's own mirror, if SEMINAR_MIRROR names one, then the official addresses."""
    mirror = os.environ.get("SEMINAR_MIRROR")
    return [f"{mirror.rstrip('/')}/{file}", *official] if mirror else list(official)


def fetch_pretrained(name: str, progress: bool = True) -> Path:
    """The path of an official file, found on this machine or downloaded into the cache; checked either way.

    Raises SeminarError when it cannot be had (naming the file and where to put it), and when the file found is
    another one than the registry knows.
    """
    entry = pretrained_info(name)
    found = find_file(name)
    if found:
        check_file(found, **entry.checks)
        return found
    urls = addresses(entry.file, *entry.urls)
    if not urls:
        raise SeminarError(
            f"{name} has no address a program could ask: get {entry.file} (about {entry.megabytes} MB, "
            f"{entry.licence}) from {entry.page} and put it at {cached_file(entry)}"
        )
    return fetch(urls, cached_file(entry), **entry.checks, progress=progress)


def fetch_vocabulary(name: str) -> Path:
    """The path of a text tower's `vocab.txt`, in the cache or downloaded (it is small).

    Raises SeminarError when the checkpoint has no such list, or it cannot be had.
    """
    entry, file = pretrained_info(name), f"{name}_vocab.txt"
    if entry.vocabulary is None:
        known = [each.name for each in registry().values() if each.vocabulary]
        raise SeminarError(f"{name} has no vocabulary of its own; {', '.join(known)} has")
    return fetch(addresses(file, entry.vocabulary), cache_dir() / "checkpoints" / file, progress=False)


def load_vocabulary(name: str, path: str | Path | None = None) -> list[str]:
    """The tokens of a text tower in the order of their ids, for `WordPieceTokenizer`.

    path: a `vocab.txt` of your own; else see `fetch_vocabulary`. SeminarError when it cannot be had or read.
    """
    path = path or fetch_vocabulary(name)
    try:
        text = Path(path).read_text(encoding="utf-8")
        return text.removesuffix("\n").split("\n")  # splitlines would also cut at signs that are tokens
    except (OSError, UnicodeDecodeError) as error:
        raise SeminarError(f"{path} cannot be read as a list of tokens, one a line: {error}") from error
