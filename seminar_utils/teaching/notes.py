"""Short messages that read well in a terminal, in a notebook and in a stored notebook.

Also the one place that knows whether a live notebook is there (`is_static`), and how values are
printed compactly in a counterexample.
"""

from __future__ import annotations

import html
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

# Okabe-Ito colours, told apart by colour-blind readers too; the mark in the text says the same.
EDGES = {"to do": "#999999", "right": "#009E73", "wrong": "#D55E00", "plain": "#0072B2"}


def _shell() -> Any:
    """The running IPython shell, or None; IPython is never imported for this."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def is_static() -> bool:
    """True when the course itself executes a notebook (SEMINAR_STATIC=1) or no notebook kernel runs.

    Then widgets give way to their static twins and the local progress file is left alone, so that
    what is stored is the same on every machine.
    """
    return made_by_the_course() or not hasattr(_shell(), "kernel")


def made_by_the_course() -> bool:
    """True when the environment says SEMINAR_STATIC=1: the run whose outputs are stored."""
    return os.environ.get("SEMINAR_STATIC", "") not in ("", "0")


@dataclass(frozen=True)
class Note:
    """A message: `text` for a terminal, `markup` (HTML; made from the text when empty) for a notebook."""

    text: str
    kind: str = "plain"
    markup: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        body = self.markup or f'<pre style="margin:0;white-space:pre-wrap">{html.escape(self.text)}</pre>'
        return f'<div style="border-left:4px solid {EDGES[self.kind]};padding:2px 10px">{body}</div>'


def show(item: Any) -> None:
    """Display a note (or anything with a rich form) under IPython, print it elsewhere."""
    if _shell() is None:
        print(item)
    else:
        from IPython.display import display

        display(item)


def compact(value: Any, limit: int = 320) -> str:
    """A value in a few lines: `float32 (2, 3): [[1. 2. 3.] ...]`; no memory addresses, so it is repeatable."""
    text = _compact(value)
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _compact(value: Any) -> str:
    if type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        dtype = str(value.dtype).removeprefix("torch.")
        return _compact_array(value.detach().cpu().numpy(), f"tensor {dtype}")
    if isinstance(value, np.ndarray):
        return _compact_array(value, f"array {value.dtype}")
    if isinstance(value, np.generic):
        return _compact(value.item())
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        open_, close = "[]" if isinstance(value, list) else "()"
        return open_ + ", ".join(_compact(item) for item in value) + close
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_compact(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (str, int, type(None))):
        return repr(value)
    return getattr(value, "__name__", type(value).__name__)


def _compact_array(array: np.ndarray, name: str) -> str:
    """Up to 24 numbers as they lie in rows, of more only the first six."""
    few = array.size <= 24
    values = array if few else array.ravel()[:6]
    values = values + 0.0 if np.issubdtype(array.dtype, np.floating) else values  # -0 reads as 0
    numbers = np.array2string(values, precision=4, suppress_small=True, max_line_width=100, separator=", ")
    shape = f" {tuple(array.shape)}" if array.ndim else ""
    if not few:
        return f"{name}{shape}, first values {numbers}"
    return f"{name}{shape}:\n{numbers}\n" if "\n" in numbers else f"{name}{shape}: {numbers}"
