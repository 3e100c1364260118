"""Sliders over a plain function in a live notebook, a static twin everywhere else."""

from __future__ import annotations

import numbers
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ..runtime import SeminarError
from .notes import Note, is_static


def explore(callback: Callable[..., Any], static: Callable[[], Any], **controls: Sequence[Any]) -> Any:
    """Sliders over `callback(**values)` in a live notebook, else the static twin `static()`.

    Args: callback: returns a figure; controls: for each argument the values to choose from (numbers get
    a slider, words a menu). End the cell with the call. Raises SeminarError for a control without values.
    """
    for name, values in controls.items():
        if len(values) == 0:
            raise SeminarError(f"the control {name!r} has no values to choose from")
    if is_static():
        return static()
    import ipywidgets

    widgets = {name: make_control(name, values) for name, values in controls.items()}
    # without auto_display the figure that a callback returns would be computed and thrown away
    return ipywidgets.interactive(errors_shown(callback), {"auto_display": True}, **widgets)


def errors_shown(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The callback, with an error returned as a visible note: widgets swallow exceptions silently."""

    def draw(**values: Any) -> Any:
        try:
            return callback(**values)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}\nin {where.name}, line {where.lineno}: {where.line}"
            return Note(f"This figure could not be drawn for {values}.\n{what}", "wrong")

    return draw


def make_control(name: str, values: Sequence[Any]):
    """A slider over numbers, a menu for anything else; it answers when it is let go."""
    import ipywidgets

    look = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    options = [(f"{v:g}" if isinstance(v, numbers.Real) else str(v), v) for v in values]
    if all(isinstance(value, numbers.Real) for value in values):
        return ipywidgets.SelectionSlider(options=options, continuous_update=False, **look)
    return ipywidgets.Dropdown(options=options, **look)
