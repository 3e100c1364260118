"""Click or drag on an image and see the mask (lesson 07): the session behind the mouse, and the widget.

The browser's part is in `click_canvas.js`, what joins the two in `click_canvas.py`, the static twin in
`click_prompts.py`; here everything is plain Python. Places are (x, y) in pixels of the image, continuous: x runs
from 0, the left edge, to the width.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models.intensity import Window
from ..models.predictor import SamPredictor
from ..runtime import SeminarError
from .click_prompts import Place, Prompt, own_predictor, prompt_gallery, to_picture
from .notes import is_static

MODES = {  # what the student is told to do
    "box": "Drag a box around an object.",
    "point": "Click on an object. A point beside it: hold Shift, use the right button, or the switch.",
}


# ---- the session behind the mouse -------------------------------------------------------------------


def box_from_drag(start: Place, end: Place, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels a drag from `start` to `end` went over, as a box in an image of `size` (height, width).

    Any corner may come first; what lies outside the image is cut off. Raises SeminarError for a drag beside the
    image, and for a mere click.
    """
    _check_places(start, end)
    height, width = size
    (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(start, end))
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise SeminarError(f"this drag lies beside the image, which is {width} wide and {height} high")
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    box = math.floor(x0), math.floor(y0), math.ceil(x1) - 1, math.ceil(y1) - 1
    if box[2] <= box[0] or box[3] <= box[1]:
        raise SeminarError("this was a click, or a line: hold the button and drag a box around the object")
    return box


def point_from_click(place: Place, size: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) under the mouse, in an image of `size` (height, width). Raises SeminarError beside it."""
    _check_places(place)
    height, width = size
    x, y = place
    if not (0 <= x <= width and 0 <= y <= height):
        raise SeminarError(f"this click lies outside the image, which is {width} wide and {height} high")
    return min(math.floor(x), width - 1), min(math.floor(y), height - 1)


def _check_places(*places: Place) -> None:
    for place in places:
        try:
            good = len(place) == 2 and all(math.isfinite(value) for value in place)
        except TypeError:
            good = False
        if not good:
            raise SeminarError(f"a place is two finite numbers (x, y), got {place!r}")


class ClickSession:
    """One image, the prompts given so far, and the model's answer to the last of them.

    mask: (H, W), boolean, or None; iou: the model's guesses, one or three; seconds: of the last answer, decoder
    and resizing only; notes: what the model warned about. The model is shared with `predictor`, the encoded image
    is not: several sessions may live side by side. Raises SeminarError for an unknown mode or a bad image.
    """

    def __init__(
        self,
        predictor: SamPredictor,
        image: Any,
        mode: str = "box",
        multimask: bool = False,
        window: Window = None,
    ):
        if mode not in MODES:
            raise SeminarError(f"the mode is one of {tuple(MODES)}, got {mode!r}")
        self.predictor = own_predictor(predictor)
        self.picture = to_picture(image, window)  # (H, W) or (H, W, 3), uint8
        self.size = self.picture.shape[:2]
        self.mode, self.multimask = mode, multimask
        self._image, self._window = image, window
        self.history: list[Prompt] = [Prompt()]
        self._forget()

    def _forget(self) -> None:
        self.mask: np.ndarray | None = None
        self.iou: list[float] = []
        self.seconds, self.notes = 0.0, []

    @property
    def prompt(self) -> Prompt:
        """The prompt in force; empty at first."""
        return self.history[-1]

    def encode(self) -> None:
        """Encode the image, the slow part; only the first call does anything."""
        if self.predictor.embedding is None:
            self.predictor.set_image(self._image, self._window)

    def drag(self, start: Place, end: Place, outside: bool = False) -> None:
        """What a press at `start` and a release at `end` mean: a new box, or one more point (where it began).

        outside: a point that the object does not hold. Raises SeminarError as `box_from_drag` and
        `point_from_click`; then nothing changes.
        """
        if self.mode == "box":
            return self._try(Prompt(box=box_from_drag(start, end, self.size)))
        old = self.prompt
        place = point_from_click(start, self.size)
        return self._try(Prompt(points=(*old.points, place), labels=(*old.labels, int(not outside))))

    def clear(self) -> None:
        """Back to the bare image; `undo` brings the prompt back."""
        if not self.prompt.empty:
            self._try(Prompt())

    def undo(self) -> None:
        """Back to the prompt before this one."""
        if len(self.history) > 1:
            self._answer(self.history[-2])
            self.history.pop()

    def _try(self, prompt: Prompt) -> None:
        """Ask, and remember the prompt only if it was answered."""
        self._answer(prompt)
        self.history.append(prompt)

    def _answer(self, prompt: Prompt) -> None:
        if prompt.empty:
            return self._forget()
        self.encode()
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = prompt.ask(self.predictor, self.multimask)
        self.mask = answer.best()[0].cpu().numpy()  # (H, W)
        self.seconds = time.perf_counter() - started
        self.iou, self.notes = answer.iou[0].tolist(), [str(warning.message) for warning in caught]
        return None

    def status(self) -> str:
        """One line for below the image: what to do, or prompt, guessed IoU and milliseconds."""
        if self.prompt.empty:
            return MODES[self.mode]
        guess = f"guessed IoU {max(self.iou):.2f}"
        if len(self.iou) > 1:
            guess += f" (of {len(self.iou)} readings: {', '.join(f'{value:.2f}' for value in self.iou)})"
        size = f"{int(self.mask.sum())} pixels" if self.mask.any() else "the mask is empty"
        return ". ".join(
            [f"{self.prompt.words()}: {guess}, {size}, decoder {1000 * self.seconds:.0f} ms", *self.notes]
        )


# ---- the widget -------------------------------------------------------------------------------------


def default_prompts(size: tuple[int, int], mode: str) -> list[Prompt]:
    """What the twin shows when the lesson names no prompts: three boxes, or points, in the middle of the image."""
    height, width = size
    if mode == "box":
        edges = [(share * width, share * height) for share in (0.1, 0.2, 0.3)]
        return [Prompt(box=(int(x), int(y), int(width - 1 - x), int(height - 1 - y))) for x, y in edges]
    middle, above = (width // 2, height // 2), (width // 2, height // 4)
    return [Prompt(points=[middle]), Prompt(points=[middle, above]), Prompt(points=[middle, above], labels=[1, 0])]


def click_segmenter(
    predictor: SamPredictor,
    image: Any,
    mode: str = "box",
    prompts: Sequence[Prompt] = (),
    multimask: bool = False,
    window: Window = None,
    width: int = 480,
) -> Any:
    """Drag a box (or click points) on an image and see the mask; without a live notebook a `prompt_gallery`.

    Args: image, window: as for `SamPredictor.set_image`; mode: "box" or "point" (LiteMedSAM and MedSAM were
    trained with boxes only); prompts: what the gallery shows; multimask: three readings, the best guess is drawn;
    width: of the longer side on the screen. End the cell with the call. The live widget's `session` holds the
    `mask` (H, W) and the `prompt`. Raises SeminarError for a bad image, mode or prompt.
    """
    if not 64 <= width <= 4096:
        raise SeminarError(f"the longer side is 64 to 4096 pixels on the screen, got {width}")
    session = ClickSession(predictor, image, mode, multimask, window)
    if is_static():
        shown = list(prompts) or default_prompts(session.size, mode)
        return prompt_gallery(predictor, image, shown, multimask, window)
    from .click_canvas import ClickCanvas

    return ClickCanvas(session, width)
