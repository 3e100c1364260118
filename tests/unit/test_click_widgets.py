"""Click or drag on an image: what a gesture means, what is remembered, what the browser is sent, the twin."""

import io
import math
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from seminar_utils.checkpoints.medsam_lite import load_lite_medsam
from seminar_utils.models import create_model
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import click_canvas, click_widgets, widgets
from seminar_utils.teaching.click_prompts import Prompt
from seminar_utils.teaching.click_widgets import ClickSession, box_from_drag, point_from_click

HEIGHT, WIDTH = 48, 80


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return SamPredictor(create_model("sam_tiny"))


@pytest.fixture(scope="module")
def image():
    """A bright disc on a dark ramp, uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.where((x - 30) ** 2 + (y - 24) ** 2 < 100, 220, x).astype(np.uint8)


@pytest.fixture
def session(predictor, image):
    return ClickSession(predictor, image)


@pytest.fixture
def points(predictor, image):
    return ClickSession(predictor, image, mode="point")


def drag(start, end, **more):
    """The message of the browser."""
    return {"type": "drag", "start": list(start), "end": list(end), **more}


# ---- gestures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "box"),
    [
        ((10.2, 5.9), (20.5, 9.1), (10, 5, 20, 9)),
        ((20.5, 9.1), (10.2, 5.9), (10, 5, 20, 9)),  # from the other corner
        ((20.5, 5.9), (10.2, 9.1), (10, 5, 20, 9)),
        ((0, 0), (WIDTH, HEIGHT), (0, 0, WIDTH - 1, HEIGHT - 1)),
        ((60, 30), (500, 400), (60, 30, WIDTH - 1, HEIGHT - 1)),  # the mouse left the image
        ((-30, -4), (8, 8), (0, 0, 7, 7)),
    ],
)
def test_press_drag_and_release_make_a_box(start, end, box):
    assert box_from_drag(start, end, (HEIGHT, WIDTH)) == box


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ((10, 10), (10.4, 10.4), "was a click"),
        ((10, 10), (30, 10.3), "or a line"),
        ((-9, -9), (-2, -2), "beside the image"),
        ((90, 10), (99, 20), "beside the image, which is 80 wide and 48 high"),
        ((math.nan, 1), (5, 5), "two finite numbers"),
        ((1, 2, 3), (5, 5), "two finite numbers"),
        (None, (5, 5), "two finite numbers"),
        (("a", "b"), (5, 5), "two finite numbers"),
    ],
)
def test_what_is_no_box_is_told(start, end, said):
    with pytest.raises(SeminarError, match=said):
        box_from_drag(start, end, (HEIGHT, WIDTH))


def test_a_click_makes_a_point_inside_the_image_only():
    assert point_from_click((10.9, 5.2), (HEIGHT, WIDTH)) == (10, 5)
    assert point_from_click((WIDTH, HEIGHT), (HEIGHT, WIDTH)) == (WIDTH - 1, HEIGHT - 1)
    with pytest.raises(SeminarError, match="outside the image"):
        point_from_click((81, 5), (HEIGHT, WIDTH))


# ---- the session ------------------------------------------------------------------------------------


def test_the_mask_is_the_predictor_s_own(session, predictor, image):
    session.drag((20, 14), (41, 35))
    assert session.prompt.box == (20, 14, 40, 34)
    expected = predictor.set_image(image).predict(boxes=[[20, 14, 40, 34]])
    assert np.array_equal(session.mask, expected.masks[0, 0].numpy()) and session.mask.shape == (HEIGHT, WIDTH)
    assert session.iou == [pytest.approx(float(expected.iou))]
    assert session.status().startswith("box 20, 14 to 40, 34: guessed IoU ") and " ms" in session.status()


def test_points_add_up_and_know_their_side(points, predictor, image):
    points.drag((30.5, 24.5), (30.5, 24.5))
    points.drag((70.5, 24.5), (70.5, 24.5), outside=True)
    assert points.prompt == Prompt(points=((30, 24), (70, 24)), labels=(1, 0))
    expected = predictor.set_image(image).predict(points=[[30, 24], [70, 24]], labels=[1, 0])
    assert np.array_equal(points.mask, expected.masks[0, 0].numpy())
    assert points.status().startswith("1 point inside, 1 outside: ")


def test_a_prompt_may_come_as_arrays():
    prompt = Prompt(box=np.array([1, 2, 3, 4]), points=torch.tensor([[5, 6]]), labels=np.array([0]))
    assert prompt == Prompt((1, 2, 3, 4), [(5, 6)], [0])
    assert prompt.words() == "box 1, 2 to 3, 4 and 0 points inside, 1 outside"


def test_undo_and_clear(session):
    session.undo()  # nothing to undo is no error
    session.drag((20, 14), (41, 35))
    first = session.mask
    session.drag((0, 0), (10, 10))
    session.undo()
    assert session.prompt.box == (20, 14, 40, 34) and np.array_equal(session.mask, first)
    session.clear()
    session.clear()
    assert session.prompt.empty and session.mask is None and session.status() == "Drag a box around an object."
    session.undo()  # takes the clearing back
    assert session.prompt.box == (20, 14, 40, 34)
    session.undo()
    assert session.prompt.empty and len(session.history) == 1


def test_what_was_refused_leaves_all_as_it_was(session, points):
    session.drag((20, 14), (41, 35))
    before = session.mask
    with pytest.raises(SeminarError):
        session.drag((5, 5), (5, 5))
    assert session.mask is before and len(session.history) == 2
    with pytest.raises(SeminarError):
        points.drag((-1, 5), (5, 5))
    assert points.prompt.empty


def test_three_readings_draw_the_one_with_the_best_guess(predictor, image):
    session = ClickSession(predictor, image, mode="point", multimask=True)
    session.drag((30, 24), (30, 24))
    assert len(session.iou) == 3 and "of 3 readings" in session.status()
    answer = predictor.set_image(image).predict(points=[[30, 24]], multimask=True)
    assert np.array_equal(session.mask, answer.masks[0, int(np.argmax(session.iou))].numpy())


def test_two_sessions_do_not_disturb_each_other_nor_the_predictor(predictor, image):
    predictor.set_image(image)
    kept = predictor.embedding
    one, two = ClickSession(predictor, image), ClickSession(predictor, 255 - image)
    one.drag((20, 14), (41, 35))
    mask, guess = one.mask, one.iou
    two.drag((20, 14), (41, 35))
    one.drag((0, 0), (9, 9))
    one.undo()
    assert np.array_equal(one.mask, mask) and one.iou == guess and one.iou != two.iou
    assert predictor.embedding is kept


def test_the_image_is_encoded_once_and_a_prompt_needs_the_decoder_only(session, monkeypatch):
    calls = []
    encode = session.predictor.model.encode
    monkeypatch.setattr(session.predictor.model, "encode", lambda x: calls.append(1) or encode(x))
    session.encode()
    session.encode()
    session.drag((20, 14), (41, 35))
    started = time.perf_counter()
    session.drag((10, 10), (41, 35))
    assert len(calls) == 1 and 0 < session.seconds < 0.3 and time.perf_counter() - started < 0.3


def test_a_box_over_everything_is_drawn_and_warned_of(session):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # where the widget lives nobody would read it
        session.drag((0, 0), (WIDTH, HEIGHT))
    assert "covers the whole image" in session.status()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((20, 30), float), ((30, 20, 3), float), ((30, 20, 4), np.uint8), ((9, 9, 1), np.uint16)]
)
def test_images_of_any_kind(predictor, shape, dtype):
    values = np.random.default_rng(0).random(shape)
    image = values if dtype is float else (values * np.iinfo(dtype).max).astype(dtype)
    session = ClickSession(predictor, image)
    assert session.picture.dtype == np.uint8
    assert session.picture.shape == (shape if len(shape) == 2 else shape[:2] + (3,) * (shape[2] > 1))
    session.drag((1, 1), (8, 8))
    assert session.mask.shape == shape[:2]


def test_bad_input_is_told(predictor, image):
    with pytest.raises(SeminarError, match="mode is one of"):
        widgets.click_segmenter(predictor, image, mode="lasso")
    with pytest.raises(SeminarError, match="expected SamPredictor"):
        widgets.click_segmenter(predictor.model, image)
    with pytest.raises(SeminarError, match="move the channels"):
        widgets.click_segmenter(predictor, np.zeros((3, 40, 50)))
    with pytest.raises(SeminarError, match="64 to 4096"):
        widgets.click_segmenter(predictor, image, width=5)
    for wrong in ({"points": [(1, 1)], "labels": [1, 0]}, {"points": [(1, 1)], "labels": [2]}, {"labels": [1]}):
        with pytest.raises(SeminarError, match="as many labels"):
            Prompt(**wrong)
    for wrong in ({"box": (1, 2, 3)}, {"box": "here"}, {"points": (1, 2)}, {"points": [(1, 2, 3)]}):
        with pytest.raises(SeminarError, match="expected"):
            Prompt(**wrong)
    with pytest.raises(SeminarError, match="a box or at least one point"):
        widgets.prompt_gallery(predictor, image, [Prompt()])
    for prompts in ([], [(1, 2, 3, 4)]):
        with pytest.raises(SeminarError, match="at least one Prompt"):
            widgets.prompt_gallery(predictor, image, prompts)
    with pytest.raises(SeminarError, match="leaves the image"):
        widgets.prompt_gallery(predictor, image, [Prompt(box=(0, 0, 500, 10))])


def test_a_gallery_may_look_closer_at_a_box(predictor, image):
    whole, near = (
        widgets.prompt_gallery(predictor, image, [Prompt(box=(10, 8, 30, 20))], zoom=z) for z in (None, 0.5)
    )
    assert near.axes[0].get_xlim() == (0, 40) and near.axes[0].get_ylim() == (26, 2)
    assert whole.axes[0].get_xlim() != near.axes[0].get_xlim()


# ---- what the browser is sent -----------------------------------------------------------------------


def colours_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_an_answer_holds_the_mask_the_prompt_and_the_numbers(session):
    assert click_canvas.respond(session, {"type": "ready"})["overlay"] == b""
    said = click_canvas.respond(session, drag((20, 14), (41, 35)))
    assert not said["failed"] and said["status"] == session.status()
    assert said["prompt"] == {"box": [20, 14, 41, 35], "points": [], "labels": []}
    pixels = colours_of(said["overlay"])
    assert np.array_equal(pixels[..., 3] > 0, session.mask)
    assert set(np.unique(pixels[..., 3])) <= {0, click_canvas.OPACITY, 255}
    assert click_canvas.respond(session, {"type": "clear"})["overlay"] == b""
    assert click_canvas.respond(session, {"type": "undo"})["prompt"]["box"] == [20, 14, 41, 35]


def test_the_edge_of_the_mask_is_marked(session):
    session.mask = np.zeros((HEIGHT, WIDTH), bool)
    session.mask[10:20, 30:40] = True
    alpha = colours_of(click_canvas.overlay(session))[..., 3]
    assert (alpha[11:19, 31:39] == click_canvas.OPACITY).all() and (alpha == 255).sum() == 100 - 64


def test_points_are_drawn_in_the_middle_of_their_pixels(points):
    said = click_canvas.respond(points, drag((30.2, 24.9), (30.2, 24.9), outside=True))
    assert said["prompt"] == {"box": None, "points": [[30.5, 24.5]], "labels": [0]}


def test_errors_are_shown_never_raised(session, monkeypatch):
    said = click_canvas.respond(session, drag((5, 5), (5, 5)))
    assert said == {"status": said["status"], "failed": True} and "hold the button" in said["status"]
    for message in ({"type": "dance"}, {}, {"type": "drag"}):
        assert click_canvas.respond(session, message)["failed"]

    def broken(*_, **__):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(session.predictor.model, "decode", broken)
    said = click_canvas.respond(session, drag((20, 14), (41, 35)))
    assert said["failed"] and "RuntimeError: no more memory (in " in said["status"] and session.prompt.empty


def test_large_images_are_sent_smaller_and_segmented_whole(predictor):
    session = ClickSession(predictor, np.zeros((1300, 2100, 3), np.uint8))
    session.drag((100, 100), (900, 900))
    assert session.mask.shape == (1300, 2100)
    sent = Image.open(io.BytesIO(click_canvas.picture_bytes(session.picture)))
    assert sent.format == "JPEG" and max(sent.size) == click_canvas.SENT
    assert max(colours_of(click_canvas.overlay(session)).shape) <= click_canvas.SENT


# ---- live and static --------------------------------------------------------------------------------


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setattr(click_widgets, "is_static", lambda: False)


def test_live_it_is_a_canvas_that_answers(predictor, image, live):
    canvas = widgets.click_segmenter(predictor, image, width=300)
    assert "being encoded" in canvas.status and canvas.session.predictor.embedding is None
    assert (canvas.size, canvas.width, canvas.mode) == ([HEIGHT, WIDTH], 300, "box")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(canvas.picture))), image)  # small ones are sent exactly
    canvas.receive({"type": "ready"})
    assert canvas.answered == 1 and canvas.status == "Drag a box around an object."
    canvas.receive(drag((20, 14), (41, 35)))
    assert canvas.answered == 2 and "guessed IoU" in canvas.status and not canvas.failed
    assert np.array_equal(colours_of(canvas.overlay)[..., 3] > 0, canvas.session.mask)
    canvas.receive(drag((5, 5), (5, 5)))
    assert canvas.failed and canvas.prompt["box"] == [20, 14, 41, 35]


def test_a_student_s_notebook_stores_one_line(predictor, image, live):
    canvas = widgets.click_segmenter(predictor, image)
    assert repr(canvas) == "click_segmenter on an image of 80 x 48 pixels, mode 'box'"
    assert len(str(canvas._repr_mimebundle_())) < 400


def test_without_a_kernel_it_is_the_gallery(predictor, image):
    prompts = [Prompt(box=(20, 14, 40, 34)), Prompt(points=[(30, 24), (70, 24)], labels=[1, 0])]
    figure = widgets.click_segmenter(predictor, image, prompts=prompts)
    session = ClickSession(predictor, image)
    session.drag((20, 14), (41, 35))
    assert [ax.get_title() for ax in figure.axes][0] == f"guessed IoU {session.iou[0]:.2f}"
    assert len(figure.axes) == 2 and len(figure.axes[0].patches) == 1 and len(figure.axes[1].lines) == 2
    assert figure.axes[0].patches[0].get_bbox().bounds == (20, 14, 20, 20)


@pytest.mark.parametrize("mode", ["box", "point"])
def test_the_twin_has_prompts_of_its_own(predictor, image, mode):
    figure = widgets.click_segmenter(predictor, image, mode=mode, multimask=mode == "point")
    assert len(figure.axes) == 3
    tiny = widgets.click_segmenter(predictor, image[:2, :2], mode=mode)
    assert len(tiny.axes) == 3


def test_the_twin_is_small_enough_to_store():
    """The heaviest of scikit-image's pictures, a stained tissue, under real masks."""
    from skimage import data

    prompts = [Prompt(box=(60 + 60 * i, 150, 260 + 60 * i, 400)) for i in range(4)]
    figure = widgets.prompt_gallery(SamPredictor(load_lite_medsam()), data.immunohistochemistry(), prompts)
    kind, content = figure.encoded()
    assert kind == "image/jpeg" and len(content) <= 60_000
