"""The pair of files behind a lesson: `notebooks/py/NN.py`, edited, and `notebooks/NN.ipynb`, executed.

`build` makes the notebook from the text: same cells, executed in the cpu profile, outputs stored without
noise, and beside each code cell a hash of all code up to it, so that `check` sees when an output is stale.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupytext.config import JupytextConfiguration
from nbformat import NotebookNode

from ..evaluation.results import code_commit
from ..runtime import SeminarError, repository, unknown_name
from .clean import clean_cell, output_problems, source_problems, write_if_changed
from .lesson_rows import rows_that_ship
from .runner import Limits, execute

PROFILE = "cpu"
FORMAT = "py:percent"
CELL_METADATA = ("tags", "slideshow", "notes")
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
METADATA = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
MARKS = "<!-- minutes --><!-- /minutes -->"
MINUTES = re.compile(r"(<!-- minutes -->)(.*?)(<!-- /minutes -->)")


def notebooks_dir() -> Path:
    """The checkout's `notebooks/`. Raises SeminarError outside of a checkout."""
    root = repository()
    if root is None:
        raise SeminarError("the course's notebooks/ folder was not found: work in a checkout, pip install -e .")
    return root / "notebooks"


def lessons(folder: Path) -> list[str]:
    """Names of the lessons that exist (`11_tent`), in order; a text without a notebook counts."""
    found = [*folder.glob("[0-9][0-9]_*.ipynb"), *(folder / "py").glob("[0-9][0-9]_*.py")]
    return sorted({path.stem for path in found})


def select(names: Iterable[str], only: str | None) -> list[str]:
    """The lessons asked for: all, or `only` = numbers or names with commas between ("11", "1,11_tent").

    Raises SeminarError for one that does not exist, and when there are none at all.
    """
    names = list(names)
    if not names:
        raise SeminarError("there is no lesson yet: notebooks/ has no file such as 00_start_here.ipynb")
    asked = [word for word in re.split(r"[,\s]+", only or "") if word]
    return sorted({_find(word, names) for word in asked}) if asked else names


def _find(word: str, names: list[str]) -> str:
    number = f"{int(word):02d}_" if word.isdecimal() else None
    for name in names:
        if name == word or (number and name.startswith(number)):
            return name
    raise unknown_name("lesson", word, names)


def read_lesson(folder: Path, name: str) -> NotebookNode:
    """What a student opens: the notebook; where there is none yet, its text."""
    path = folder / f"{name}.ipynb"
    if not path.exists():
        return read_text(folder, name)
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        raise SeminarError(f"notebooks/{name}.ipynb can't be read as a notebook: {error}") from error


def read_text(folder: Path, name: str) -> NotebookNode:
    """The cells of `py/NAME.py`, with stable ids and the course's metadata, and no outputs."""
    path = folder / "py" / f"{name}.py"
    if not path.exists():
        raise SeminarError(f"notebooks/py/{name}.py was not found: it is the text that {name}.ipynb is made from")
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt=FORMAT, config=_jupytext_config())
    for position, cell in enumerate(notebook.cells):
        cell["id"] = cell_id(name, position)
        cell["metadata"] = _kept(cell.metadata)
    notebook["metadata"] = nbformat.from_dict(METADATA)
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    return notebook


def write_text(folder: Path, name: str, notebook: NotebookNode) -> bool:
    """Write the notebook's cells to `py/NAME.py`; says whether the file changed."""
    plain = copy.deepcopy(notebook)
    plain["metadata"] = nbformat.from_dict({"kernelspec": KERNELSPEC})
    for cell in plain.cells:
        cell["metadata"] = _kept(cell.metadata)
    text = jupytext.writes(plain, fmt=FORMAT, config=_jupytext_config())
    return write_if_changed(folder / "py" / f"{name}.py", text)


def write_notebook(folder: Path, name: str, notebook: NotebookNode) -> bool:
    """Write `NAME.ipynb`; says whether the file changed."""
    return write_if_changed(folder / f"{name}.ipynb", nbformat.writes(notebook))


def cell_id(name: str, position: int) -> str:
    """The same cell gets the same id at every build, so that a rebuild shows no difference in git."""
    return f"{re.sub('[^A-Za-z0-9]+', '-', name)[:56]}-{position:03d}"


def source_hashes(notebook: NotebookNode) -> list[str]:
    """For each code cell, a hash of all code up to and including it."""
    running, found = hashlib.sha256(), []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            running.update(cell.source.encode() + b"\0")
            found.append(running.hexdigest()[:16])
    return found


def build(name: str, folder: Path | None = None, limits: Limits | None = None, on_cell=None) -> dict[str, Any]:
    """Make `NAME.ipynb` from `py/NAME.py`, executed in the cpu profile; writes the measured minutes into both.

    Returns what was recorded (profile, commit, minutes). Raises SeminarError with the failing cell.
    """
    folder = folder or notebooks_dir()
    notebook, text = read_text(folder, name), _text_of(folder, name)
    if not notebook.cells or not MINUTES.search(notebook.cells[0].source):
        raise SeminarError(f"the first cell of py/{name}.py needs the marks {MARKS} for the measured time")
    with rows_that_ship(folder, name, text) as keep:
        outcome = execute(notebook, name, folder, PROFILE, limits, on_cell)
        if not outcome.ok:
            raise SeminarError(
                f"{name}: code cell {outcome.cell} failed:\n{outcome.cell_source}\n\n{outcome.error}"
            )
        if _text_of(folder, name) != text:
            raise SeminarError(
                f"py/{name}.py was changed while it was executed: nothing is written, build it again"
            )
        keep()
    seconds = min(outcome.seconds, outcome.cpu_seconds)  # waiting for other programs is not the lesson's time
    minutes = steady_minutes(recorded(folder, name).get("minutes"), seconds / 60)
    for number, (cell, digest) in enumerate(zip(code_cells(notebook), source_hashes(notebook)), 1):
        clean_cell(cell, number)
        cell.metadata["seminar"] = {"source_hash": digest}
    about = {"profile": PROFILE, "commit": code_commit(), "minutes": minutes}
    notebook["metadata"] = nbformat.from_dict({**METADATA, "seminar": about})
    notebook.cells[0]["source"] = with_minutes(notebook.cells[0].source, minutes)
    write_notebook(folder, name, notebook)
    write_text(folder, name, notebook)
    return about


def _text_of(folder: Path, name: str) -> str:
    return (folder / "py" / f"{name}.py").read_text(encoding="utf-8")


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """What the last build noted in the notebook: profile, commit, minutes; {} when there is none."""
    if not (folder / f"{name}.ipynb").exists():
        return {}
    return dict(read_lesson(folder, name).metadata.get("seminar", {}))


def steady_minutes(before: float | None, measured: float) -> float:
    """The measured minutes, to a tenth; the earlier number as long as the new one is near it."""
    if before is not None and abs(measured - before) <= max(0.4, 0.3 * before):
        return before
    return round(measured, 1)


def minutes_text(minutes: float) -> str:
    """`about 3 minutes to run (cpu profile)`."""
    whole = max(1, round(minutes))
    amount = "less than a minute" if minutes < 0.75 else f"about {whole} minute{'s' if whole > 1 else ''}"
    return f"{amount} to run ({PROFILE} profile)"


def with_minutes(source: str, minutes: float) -> str:
    """The title cell's text with the measured minutes between its marks."""
    return MINUTES.sub(lambda match: match[1] + minutes_text(minutes) + match[3], source, count=1)


def sync(name: str, folder: Path | None = None, from_notebook: bool = False) -> bool:
    """Carry the cells from the text to the notebook (or back) without running; says whether a file changed.

    Outputs of cells whose code is the same stay; `check` still tells which are stale.
    """
    folder = folder or notebooks_dir()
    if from_notebook:
        return write_text(folder, name, read_lesson(folder, name))
    notebook = read_text(folder, name)
    if (folder / f"{name}.ipynb").exists():
        old = read_lesson(folder, name)
        carry_outputs(old, notebook)
        if "seminar" in old.metadata:
            notebook.metadata["seminar"] = old.metadata["seminar"]
    return write_notebook(folder, name, notebook)


def carry_outputs(old: NotebookNode, notebook: NotebookNode) -> None:
    """Give each cell whose code stood in the old notebook, in the same order, its outputs back."""
    stored = code_cells(old)
    for cell in code_cells(notebook):
        sources = [candidate.source.rstrip() for candidate in stored]
        if cell.source.rstrip() in sources:
            place = sources.index(cell.source.rstrip())
            same = stored[place]
            cell["outputs"], cell["execution_count"] = same.outputs, same.execution_count
            cell["metadata"].update({key: same.metadata[key] for key in ("seminar",) if key in same.metadata})
            stored = stored[place + 1 :]


def check(name: str, folder: Path | None = None) -> list[str]:
    """What is wrong with a lesson's pair, one sentence each; [] when all is well."""
    folder = folder or notebooks_dir()
    path = folder / f"{name}.ipynb"
    if not path.exists():
        return [f"{name}.ipynb is missing: seminar notebooks build --only {name}"]
    notebook, text = read_lesson(folder, name), read_text(folder, name)
    return [f"{name}: {problem}" for problem in _problems(notebook, text, path)]


def _problems(notebook: NotebookNode, text: NotebookNode, path: Path) -> list[str]:
    problems = pair_problems(notebook, text) + source_problems(notebook, path)
    about = notebook.metadata.get("seminar", {})
    if about.get("profile") != PROFILE or "minutes" not in about:
        return [*problems, "was not executed by `seminar notebooks build`"]
    if minutes_text(about["minutes"]) not in notebook.cells[0].source:
        problems.append("the title cell does not give the measured minutes")
    stale = [
        number
        for number, (cell, digest) in enumerate(zip(code_cells(notebook), source_hashes(notebook)), 1)
        if cell.metadata.get("seminar", {}).get("source_hash") != digest
    ]
    if stale:
        problems.append(f"outputs are stale from code cell {stale[0]} on: seminar notebooks build")
    for number, cell in enumerate(code_cells(notebook), 1):
        problems += [f"code cell {number}: {problem}" for problem in output_problems(cell, number)]
    return problems


def pair_problems(notebook: NotebookNode, text: NotebookNode) -> list[str]:
    """Where the notebook's cells differ from the text's."""
    ours, theirs = [_identity(cell) for cell in notebook.cells], [_identity(cell) for cell in text.cells]
    if len(ours) != len(theirs):
        return [f"the notebook has {len(ours)} cells, its text {len(theirs)}: seminar notebooks sync"]
    differ = [position for position, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    return [f"cell {differ[0]} differs between notebook and text: seminar notebooks sync"] if differ else []


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _identity(cell: NotebookNode) -> tuple[str, str, dict]:
    return cell.cell_type, cell.source.rstrip(), dict(_kept(cell.metadata))


def _kept(metadata: dict) -> NotebookNode:
    return nbformat.from_dict({key: metadata[key] for key in CELL_METADATA if key in metadata})


def _jupytext_config() -> JupytextConfiguration:
    return JupytextConfiguration(
        cell_metadata_filter=",".join([*CELL_METADATA, "-all"]),
        notebook_metadata_filter="kernelspec,-jupytext.text_representation.jupytext_version",
    )
