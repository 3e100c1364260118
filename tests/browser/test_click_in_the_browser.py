"""click_segmenter in JupyterLab in a real Chromium: a mouse drags, the mask appears, in time.

Screenshots and the measured times stay in build/browser/. Skipped where no Chromium is installed
(Debian, Ubuntu: apt install chromium).
"""

import json
import os
import re
import time

import nbformat
import pytest
from chromium import SHIFT, chromium, find_chromium
from lab_server import TOKEN, serving_lab
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium, Chrome or Edge on the PATH: the widget is not tried in a browser"
)

TINY = """
import numpy as np, torch
from seminar_utils.models import create_model
from seminar_utils.models.predictor import SamPredictor
from seminar_utils.teaching.widgets import click_segmenter
torch.manual_seed(0)
tiny = SamPredictor(create_model("sam_tiny"))
y, x = np.mgrid[:48, :80]
image = np.where((x - 30) ** 2 + (y - 24) ** 2 < 100, 220, x).astype(np.uint8)
click_segmenter(tiny, image)
"""
POINTS = 'click_segmenter(tiny, image, mode="point")'
LITE = """
from skimage import data
from seminar_utils.checkpoints.medsam_lite import load_lite_medsam
click_segmenter(SamPredictor(load_lite_medsam()), data.immunohistochemistry())
"""
CELLS = (TINY, POINTS, LITE)
# each status that was ever shown, so that those of a moment can be asked for later
REMEMBER = """
window.statuses = new Set();
new MutationObserver(() => {
    document.querySelectorAll(".seminar-click-status").forEach((status) => statuses.add(status.textContent));
}).observe(document.body, {childList: true, subtree: true}) && true
"""
LIMIT = 0.3  # seconds from the release of the button to the mask on the screen


@pytest.fixture(scope="module")
def pictures(root):
    return root / "build" / "browser"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with a notebook of three widgets."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = new_notebook(cells=[new_code_cell(code.strip()) for code in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "click.ipynb")
    return folder


@pytest.fixture(scope="module")
def page(checkout, root, tmp_path_factory):
    """The notebook in JupyterLab, its cells executed by the command of the menu, all three widgets ready."""
    profile = tmp_path_factory.mktemp("chromium")
    options = ["--LabApp.expose_app_in_browser=True"]  # so that the test can wait for the kernel
    with serving_lab(checkout, *options, PYTHONPATH=_with(root)) as (address, _), chromium(profile) as page:
        page.send("Page.navigate", url=f"{address}/lab/tree/click.ipynb?token={TOKEN}&reset")
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        page.wait(f"{kernel} == 'idle'", 120)
        page.value(REMEMBER)
        page.value("jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
        page.wait(f"document.querySelectorAll('.seminar-click[data-answered=\"1\"]').length == {len(CELLS)}", 120)
        yield page


def _with(root):
    """The checkout first on Python's path of the kernel, whatever the package is installed from."""
    return os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])


class Widget:
    """The n-th widget of the notebook, seen and handled from outside."""

    def __init__(self, page, index):
        self.page, self.me = page, f"document.querySelectorAll('.seminar-click')[{index}]"
        page.value(f"{self.me}.scrollIntoView({{block: 'center'}})")
        time.sleep(0.5)  # JupyterLab settles its scrolling

    def find(self, selector):
        return f"{self.me}.querySelector('{selector}')"

    def status(self):
        return self.page.value(self.find(".seminar-click-status") + ".textContent")

    def place(self, across, down):
        """A share of the image's width and height as a place in the window."""
        box = self.page.value(f"{self.find('.seminar-click-stage')}.getBoundingClientRect().toJSON()")
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def answered(self, action):
        """Do something and return the status that the kernel's next answer brings."""
        count = int(self.page.value(f"{self.me}.dataset.answered"))
        action()
        self.page.wait(f"{self.me}.dataset.answered == {count + 1}", 30)
        return self.status()

    def drag(self, start, end):
        self.page.press_and_move(self.place(*start), self.place(*end))
        return self.answered(lambda: self.page.mouse("mouseReleased", *self.place(*end)))

    def click(self, *share, **how):
        return self.answered(lambda: self.page.click(*self.place(*share), **how))

    def button(self, name):
        box = self.page.value(self.find(f"[data-act={name}]") + ".getBoundingClientRect().toJSON()")
        return self.answered(lambda: self.page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))

    def shapes(self, name):
        return self.page.value(f"{self.me}.querySelectorAll('svg {name}').length")

    def boxes(self):
        return self.shapes("rect[stroke-dasharray]")  # each has a white line below it

    def coloured(self):
        """How many pixels of the mask's picture are not transparent; 0 when it is hidden."""
        return self.page.value(
            f"""(() => {{
                const mask = {self.find(".seminar-click-mask")};
                if (!mask.src || mask.style.display == "none") return 0;
                const canvas = new OffscreenCanvas(mask.naturalWidth, mask.naturalHeight);
                const context = canvas.getContext("2d");
                context.drawImage(mask, 0, 0);
                const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
                return bytes.filter((value, i) => i % 4 == 3 && value > 0).length;
            }})()"""
        )


def pixels(status):
    return int(re.search(r"(\d+) pixels", status)[1])


def milliseconds(status):
    """(decoder, from the mouse to the screen)"""
    return tuple(map(int, re.search(r"decoder (\d+) ms, on the screen after (\d+) ms", status).groups()))


def keep_times(pictures, name, seen):
    """For the report: [decoder, mouse to screen] in milliseconds, for each drag."""
    path = pictures / "times.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: seen}))


def times_of_boxes(widget):
    """Five boxes, up to ten more while none is in time: other programs may hold the processor."""
    seen = []
    while len(seen) < 5 or (len(seen) < 15 and min(screen for _, screen in seen) >= 1000 * LIMIT):
        seen.append(milliseconds(widget.drag((0.2 + 0.01 * len(seen), 0.25), (0.55, 0.75))))
    return seen


def test_a_dragged_box_brings_a_mask_in_time(page, pictures):
    widget = Widget(page, 0)
    assert widget.status() == "Drag a box around an object." and widget.coloured() == 0
    status = widget.drag((0.2501, 0.2501), (0.5124, 0.7291))
    assert status.startswith("box 20, 12 to 40, 34: guessed IoU ")
    assert widget.coloured() == pixels(status) > 0
    page.screenshot(pictures / "box.png")
    seen = times_of_boxes(widget)
    keep_times(pictures, "sam_tiny", seen)
    assert min(screen for _, screen in seen) < 1000 * LIMIT, seen


def test_waiting_is_explained(page):
    Widget(page, 0).drag((0.3, 0.3), (0.6, 0.6))
    shown = page.value("[...statuses]")
    assert "The image is being encoded, once ..." in shown and "asking the model ..." in shown


def test_the_box_follows_the_mouse_before_the_button_is_released(page):
    widget = Widget(page, 0)
    widget.button("clear")
    assert widget.boxes() == 0
    start, end = widget.place(0.2, 0.2), widget.place(0.6, 0.6)
    page.press_and_move(start, end)
    page.wait(widget.find("svg rect") + "?.width.baseVal.value > 30", 5)  # of 32 pixels of the image
    assert widget.answered(lambda: page.mouse("mouseReleased", *end)).startswith("box 16, 9 to ")


def test_a_drag_may_leave_the_image(page):
    status = Widget(page, 0).drag((0.5, 0.5), (1.2, 0.8))
    assert status.startswith("box 40, 24 to 79, 38:") or status.startswith("box 40, 23 to 79, 38:")


def test_undo_clear_and_a_mistake(page):
    widget = Widget(page, 0)
    first = widget.drag((0.3, 0.3), (0.6, 0.6)).split(":")[0]
    widget.drag((0.1, 0.1), (0.9, 0.9))
    assert widget.button("undo").startswith(first)
    assert "hold the button and drag" in widget.click(0.5, 0.5)
    assert widget.boxes() == 1 and widget.coloured() > 0  # the last answer stays
    assert widget.button("clear") == "Drag a box around an object."
    assert widget.coloured() == widget.boxes() == 0


def test_points_inside_and_outside(page, pictures):
    widget = Widget(page, 1)
    status = widget.click(0.38, 0.5)
    assert status.startswith("1 point inside: ") and widget.coloured() == (
        pixels(status) if "pixels" in status else 0
    )
    assert widget.click(0.9, 0.2, modifiers=SHIFT).startswith("1 point inside, 1 outside: ")
    assert widget.click(0.9, 0.8, button="right").startswith("1 point inside, 2 outside: ")
    assert page.value("document.querySelectorAll('.lm-Menu').length") == 0  # JupyterLab's menu stays away
    page.value(widget.find(".seminar-click-outside") + ".click()")
    assert widget.click(0.1, 0.9).startswith("1 point inside, 3 outside: ")
    assert widget.shapes("circle") == 1 and widget.shapes("path") == 6
    page.screenshot(pictures / "points.png")


def test_lite_medsam_answers_in_time(page, pictures):
    widget = Widget(page, 2)
    status = widget.drag((0.2, 0.3), (0.55, 0.8))
    assert widget.coloured() == pixels(status) > 0
    page.screenshot(pictures / "lite_medsam.png")
    seen = times_of_boxes(widget)
    keep_times(pictures, "lite_medsam", seen)
    assert min(screen for _, screen in seen) < 1000 * LIMIT, seen


def test_the_saved_notebook_holds_no_picture_and_no_state(page, checkout):
    page.value("jupyterapp.commands.execute('docmanager:save').then(() => true)")
    saved = checkout / "click.ipynb"
    notebook = nbformat.read(saved, as_version=4)
    assert "click_segmenter on an image of 80 x 48" in json.dumps(notebook.cells[0].outputs)
    assert saved.stat().st_size < 8000 and "widgets" not in notebook.metadata
