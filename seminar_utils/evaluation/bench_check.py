"""Before the first cell runs: what can be tried without running."""

from __future__ import annotations

from ..checkpoints.course import checkpoint_card
from ..runtime import SeminarError
from .bench_cells import Cell, Setup, data_name, words
from .bench_run import as_tuples, image_set, method_of


def check_cells(cells: list[Cell], setup: Setup) -> None:
    """Try what can be tried without running: each method on each model, each data set under each model.

    Raises SeminarError for a method that does not fit a model (no BatchNorm ...), a setting it refuses, data that
    is not here, other classes than the model's, a batch larger than the set.
    """
    for cell in {(c.checkpoint, words(c.method)): c for c in cells}.values():
        for candidate in cell.method.get("candidates", [{}]):
            settings = as_tuples({**cell.method["settings"], **candidate})
            try:
                method_of(cell, setup, settings)
            except Exception as error:  # a method of somebody's own may raise anything
                name = cell.params()["method"]
                raise SeminarError(f"{name} can't be used on {cell.checkpoint}: {error}") from error
    for cell in {(c.checkpoint, words(c.data)): c for c in cells}.values():
        _check_data(cell, setup, max(c.batch_size for c in cells if c.data == cell.data))


def _check_data(cell: Cell, setup: Setup, batch: int) -> None:
    found, card = image_set(cell.data, cell.images), checkpoint_card(cell.checkpoint, setup.checkpoints)
    theirs, ours = list(found.class_names), list(card["class_names"])
    if theirs != ours:
        raise SeminarError(
            f"{cell.checkpoint} tells {_few(ours)} apart, {data_name(cell.data)} has {_few(theirs)}"
        )
    if batch > len(found):
        raise SeminarError(f"a batch of {batch} can't be filled: {data_name(cell.data)} has {len(found)} images")


def _few(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:4])}{' ...' if len(names) > 4 else ''})"
