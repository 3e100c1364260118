"""What may be stored in a notebook: outputs without noise, without widgets, without traces of the machine."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from .style import small_png

MAX_BYTES = 1_500_000
WIDGET = "application/vnd.jupyter.widget-view+json"
ALLOWED_METADATA = {"kernelspec", "language_info", "seminar"}
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work|tmp|var/folders|opt|mnt|private)/[\w.~-]"
    r"|\b[A-Za-z]:\\+Users\b|site-packages"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


def clean_cell(cell: NotebookNode, number: int) -> None:
    """Number the cell and its results, join streams, make pictures small, drop widgets and what was timed."""
    cell["execution_count"] = number
    cell["metadata"].pop("execution", None)
    kept: list[NotebookNode] = []
    for output in cell.outputs:
        if WIDGET in output.get("data", {}):
            continue
        if output.output_type == "execute_result":
            output["execution_count"] = number
        if picture := output.get("data", {}).get("image/png"):
            output["data"]["image/png"] = base64.b64encode(small_png(base64.b64decode(picture))).decode()
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1]["text"] += output.text
        else:
            kept.append(output)
    cell["outputs"] = kept


def output_problems(cell: NotebookNode, number: int) -> list[str]:
    """What may not be stored among a cell's outputs, one phrase each."""
    problems = [] if cell.execution_count == number else ["its execution number is out of order"]
    raises = "raises-exception" in cell.metadata.get("tags", [])
    for output in cell.outputs:
        if output.output_type == "error" and not raises:
            problems.append("it stores an error")
        if output.output_type == "stream" and output.name == "stderr":
            problems.append(f"it stores a warning or other stderr: {output.text.strip()[:80]!r}")
        if WIDGET in output.get("data", {}):
            problems.append("it stores a widget, which shows nothing without a kernel")
        text = output_text(output)
        if found := MACHINE_PATH.search(text) or _own_path(text):
            problems.append(f"it stores a path of this machine: {text[found.start() : found.start() + 60]!r}")
        if found := ADDRESS.search(text):
            shown = text[max(0, found.start() - 40) : found.end()]
            problems.append(f"it stores a memory address, another at every run: {shown!r}")
    return problems


def _own_path(text: str) -> re.Match | None:
    """The folder of this checkout or of the user, wherever they are."""
    places = [str(Path.cwd()), str(Path.home())]
    return re.search("|".join(re.escape(place) + r"\b" for place in places if len(place) > 3) or "(?!)", text)


def output_text(output: NotebookNode) -> str:
    """Everything readable in an output; pictures left out."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/p")}
    parts = [output.get("text", ""), *data.values(), *output.get("traceback", [])]
    return "\n".join("".join(part) if isinstance(part, list) else str(part) for part in parts)


def source_problems(notebook: NotebookNode, path: Path) -> list[str]:
    """What is wrong with the file as a whole: its size, widget state, paths of a machine in its cells."""
    problems = []
    size = path.stat().st_size
    if size > MAX_BYTES:
        problems.append(f"the file has {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.1f} are stored")
    if extra := sorted(set(notebook.metadata) - ALLOWED_METADATA):
        problems.append(f"the notebook's metadata holds {extra}")
    for position, cell in enumerate(notebook.cells):
        if cell.get("attachments"):
            problems.append(f"cell {position} has attachments, which the text cannot hold")
        if found := re.search(r"(?<![\w.])/(?:home|root|Users|work)/\w", cell.source):
            problems.append(f"cell {position} names a path of a machine: {cell.source[found.start() :][:40]!r}")
    return problems


def write_if_changed(path: Path, text: str) -> bool:
    """Replace a file as a whole, and only when its content changes; says whether it did."""
    text = text.rstrip("\n") + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
