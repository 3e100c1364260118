"""One image under several prompts, as a figure: what is stored where nobody can click (lessons 07 and 08)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..models.intensity import Window, as_array, read_image
from ..models.predictor import Prediction, SamPredictor
from ..runtime import SeminarError
from .style import PALETTE, CourseFigure, draw_picture, panels, styled

MASK, INSIDE, OUTSIDE = PALETTE[5], PALETTE[2], PALETTE[1]
Place = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """What is asked about an image, in its pixels: a box, or points, or both.

    box: (x0, y0, x1, y1), the first and the last column and row; points: (x, y) each; labels: 1 (inside) or 0
    (outside) for each point, all inside when left out.
    """

    box: Sequence[float] | None = None
    points: Sequence[Place] = ()
    labels: Sequence[int] = ()

    def __post_init__(self):
        # arrays and tensors become plain numbers: a prompt can be compared, printed and sent to the browser
        box = None if self.box is None else tuple(_plain(self.box, "a box (x0, y0, x1, y1)", (4,)))
        points = tuple(map(tuple, _plain(self.points, "points (x, y)", (None, 2)))) if len(self.points) else ()
        given = _plain(self.labels, "labels", (None,)) if len(self.labels) else [1] * len(points)
        labels = tuple(map(int, given))
        if len(labels) != len(points) or not set(labels) <= {0, 1}:
            raise SeminarError(f"{len(points)} points take as many labels of 1 or 0, got {labels}")
        for name, value in (("box", box), ("points", points), ("labels", labels)):
            object.__setattr__(self, name, value)

    @property
    def empty(self) -> bool:
        """True when nothing is asked."""
        return self.box is None and not self.points

    def words(self) -> str:
        """The prompt in words, such as `box 10, 12 to 40, 50` or `2 points inside, 1 outside`."""
        said = [] if self.box is None else ["box {:g}, {:g} to {:g}, {:g}".format(*self.box)]
        if self.points:
            inside = sum(self.labels)
            outside = len(self.points) - inside
            plural = "" if inside == 1 else "s"
            said.append(f"{inside} point{plural} inside" + (f", {outside} outside" if outside else ""))
        return " and ".join(said)

    def ask(self, predictor: SamPredictor, multimask: bool = False) -> Prediction:
        """The predictor's answer about its current image. Raises SeminarError for an empty prompt, or its own."""
        if self.empty:
            raise SeminarError("a prompt needs a box or at least one point")
        prompts: dict[str, Any] = {} if self.box is None else {"boxes": [list(self.box)]}
        if self.points:
            prompts |= {"points": [[list(place) for place in self.points]], "labels": [list(self.labels)]}
        return predictor.predict(**prompts, multimask=multimask)


def _plain(values: Any, what: str, shape: tuple[int | None, ...]) -> list:
    """Numbers of a given shape (None: any length) as nested lists of floats. Raises SeminarError otherwise."""
    try:
        array = as_array(values).astype(float)
    except (TypeError, ValueError):
        raise SeminarError(f"expected {what} as numbers, got {values!r}") from None
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape)):
        raise SeminarError(f"expected {what}, got shape {array.shape}")
    return array.tolist()


@styled
def prompt_gallery(
    predictor: SamPredictor,
    image: Any,
    prompts: Sequence[Prompt],
    multimask: bool = False,
    window: Window = None,
    columns: int | None = None,
    zoom: float | None = None,
) -> CourseFigure:
    """One image under several prompts: the prompt, the outline of the mask, the guessed IoU above.

    Args: image, window: as for `SamPredictor.set_image`; multimask: of three readings the one with the best
    guess; zoom: show each box with this share of its sides around it, not the whole image. The image is encoded
    once, and the predictor keeps the image it had. Raises SeminarError without prompts, and for those that do not
    fit the image.
    """
    own = own_predictor(predictor)
    if not prompts or not all(isinstance(prompt, Prompt) for prompt in prompts):
        raise SeminarError(
            f"prompt_gallery needs at least one Prompt(box=...) or Prompt(points=...), got {prompts!r}"
        )
    picture = to_picture(image, window)
    own.set_image(image, window)
    side = 2.7 if len(prompts) < 4 else 2.1  # inches: four panels of a stained tissue stay below 60 KB
    figure, axes = panels(len(prompts), columns or min(len(prompts), 4), side, photo=True)
    for ax, prompt in zip(axes, prompts):
        answer = prompt.ask(own, multimask)
        mask = answer.best()[0].cpu().numpy()
        draw_picture(ax, picture, f"guessed IoU {float(answer.iou.max()):.2f}" + ("" if mask.any() else ", empty"))
        ax.images[0].set_interpolation("auto")  # large images are smoothed: no moire, half the bytes
        _draw_mask(ax, mask)
        _draw_prompt(ax, prompt)
        if zoom is not None and prompt.box is not None:
            _look_closer(ax, prompt.box, zoom)
    return figure


def _look_closer(ax: Axes, box: Sequence[float], share: float) -> None:
    """Show a box (x0, y0, x1, y1) and `share` of its sides around it; y runs downwards."""
    x0, y0, x1, y1 = box
    across, down = share * (x1 - x0), share * (y1 - y0)
    ax.set(xlim=(x0 - across, x1 + across), ylim=(y1 + down, y0 - down))


def _draw_mask(ax: Axes, mask: np.ndarray) -> None:
    """A boolean mask (H, W) as an outline; one that is empty or full has none."""
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=[MASK], linewidths=2)


def _draw_prompt(ax: Axes, prompt: Prompt) -> None:
    """The box dashed on a white line, so that it is seen on any image; a disc inside, a cross outside."""
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        halo = [withStroke(linewidth=3, foreground="white", alpha=0.7)]
        look = {"edgecolor": OUTSIDE, "linestyle": "--", "linewidth": 1.5, "path_effects": halo}
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **look))
    for (x, y), label in zip(prompt.points, prompt.labels):
        mark, colour = ("o", INSIDE) if label else ("X", OUTSIDE)
        ax.plot(x, y, mark, color=colour, markeredgecolor="white", markersize=9)


def to_picture(image: Any, window: Window = None) -> np.ndarray:
    """What is shown of an image (see `SamPredictor.set_image`): uint8, (H, W) if it is grey, else (H, W, 3)."""
    shape = as_array(image).shape
    grey = len(shape) == 2 or shape[-1] == 1
    picture = read_image(image, 1 if grey else 3, window)
    return picture[..., 0] if grey else picture


def own_predictor(predictor: SamPredictor) -> SamPredictor:
    """A predictor of the same model with an image of its own."""
    if not isinstance(predictor, SamPredictor):
        raise SeminarError(f"expected SamPredictor(model), got {type(predictor).__name__}")
    return SamPredictor(predictor.model)
