"""Joins a `ClickSession` to the browser: the picture and the mask go out, clicks and drags come in.

Imported in live notebooks only. Whatever goes wrong in an answer is shown below the image: an exception in a
widget's callback would pass silently.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from matplotlib.colors import to_rgb
from PIL import Image

from ..runtime import SeminarError
from .click_prompts import INSIDE, MASK, OUTSIDE
from .click_widgets import ClickSession
from .style import PALETTE

SENT = (
    1024  # longest side of what is sent to the browser; larger images are shown smaller, never segmented smaller
)
OPACITY = 110  # of the mask's inside, of 255


def respond(session: ClickSession, message: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a message of the browser asks for and return what to show; never raises.

    message: {"type": "ready" | "drag" | "undo" | "clear"}, a drag with "start", "end" and "outside".
    Returns the traits of `ClickCanvas` that change: status, failed, and after a success prompt and overlay.
    """
    try:
        _act(session, message)
        return {
            "status": session.status(),
            "failed": False,
            "prompt": drawing(session),
            "overlay": overlay(session),
        }
    except SeminarError as error:
        return {"status": str(error), "failed": True}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno}: {where.line})"
        return {"status": f"This could not be answered. {what}", "failed": True}


def _act(session: ClickSession, message: Mapping[str, Any]) -> None:
    kind = message.get("type")
    if kind == "ready":
        session.encode()
    elif kind == "drag":
        session.drag(message["start"], message["end"], bool(message.get("outside")))
    elif kind in ("undo", "clear"):
        getattr(session, kind)()
    else:
        raise SeminarError(f"the browser sent a message of an unknown type: {kind!r}")


def drawing(session: ClickSession) -> dict[str, Any]:
    """The prompt as the browser draws it: the edges of the box, the middles of the points, labels."""
    prompt = session.prompt
    x0, y0, x1, y1 = prompt.box or (0, 0, 0, 0)
    box = None if prompt.box is None else [x0, y0, x1 + 1, y1 + 1]
    return {"box": box, "points": [[x + 0.5, y + 0.5] for x, y in prompt.points], "labels": list(prompt.labels)}


def fewer_pixels(array: np.ndarray) -> np.ndarray:
    """Every n-th row and column of (H, W, ...), so that the longest side is at most SENT."""
    step = -(-max(array.shape[:2]) // SENT)
    return array[::step, ::step]


def picture_bytes(picture: np.ndarray) -> bytes:
    """A picture (H, W) or (H, W, 3) of uint8 as the browser gets it: PNG, exact, or JPEG when it is large."""
    image = Image.fromarray(picture)
    image.thumbnail((SENT, SENT))
    kind = {"format": "PNG"} if max(image.size) <= 256 else {"format": "JPEG", "quality": 92}
    stored = io.BytesIO()
    image.save(stored, **kind)
    return stored.getvalue()


def overlay(session: ClickSession) -> bytes:
    """The mask as a PNG of three colours: nothing, inside, edge; empty bytes without a mask."""
    if session.mask is None:
        return b""
    mask = fewer_pixels(session.mask)
    padded = np.pad(mask, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]  # all four neighbours
    image = Image.fromarray(np.where(mask, np.where(within, 1, 2), 0).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, *_bytes(MASK), *_bytes(PALETTE[0])])
    stored = io.BytesIO()
    image.save(stored, "PNG", transparency=bytes([0, OPACITY, 255]), compress_level=1)
    return stored.getvalue()


def _bytes(colour: str) -> list[int]:
    return [round(255 * value) for value in to_rgb(colour)]


class ClickCanvas(anywidget.AnyWidget):
    """The image in the browser. `session` is the Python side: its `mask`, `prompt` and `iou`.

    The browser says "ready" when it shows the image; only then is it encoded, so that the message about the
    wait is seen. `answered` counts the answers and changes last.
    """

    _esm = Path(__file__).with_name("click_canvas.js")
    picture = traitlets.Bytes().tag(sync=True)
    size = traitlets.List().tag(sync=True)  # height, width
    width = traitlets.Int().tag(sync=True)
    mode = traitlets.Unicode().tag(sync=True)
    colours = traitlets.Dict({"box": OUTSIDE, "inside": INSIDE, "outside": OUTSIDE}).tag(sync=True)
    overlay = traitlets.Bytes().tag(sync=True)
    prompt = traitlets.Dict().tag(sync=True)
    status = traitlets.Unicode("The image is being encoded, once ...").tag(sync=True)
    failed = traitlets.Bool().tag(sync=True)
    answered = traitlets.Int().tag(sync=True)

    def __init__(self, session: ClickSession, width: int):
        super().__init__(
            picture=picture_bytes(session.picture), size=list(session.size), width=width, mode=session.mode
        )
        self.session = session
        self.on_msg(lambda _, message, buffers: self.receive(message))

    def __repr__(self) -> str:
        """Short: this text is stored in a student's notebook."""
        return f"click_segmenter on an image of {self.size[1]} x {self.size[0]} pixels, mode {self.mode!r}"

    def receive(self, message: Mapping[str, Any]) -> None:
        """Answer one message of the browser, all changes in one go."""
        changes = respond(self.session, message)
        with self.hold_sync():
            self.set_trait("answered", self.answered + 1)
            for name, value in changes.items():
                self.set_trait(name, value)
