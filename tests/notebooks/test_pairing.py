"""The pair of files: build, check and sync on small lessons, then the check on every lesson of the course."""

import base64
import io
import os
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from lessons_for_tests import write_lesson

from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import notebooks
from seminar_utils.teaching.clean import clean_cell, output_problems, source_problems
from seminar_utils.teaching.lesson_rows import rows_that_ship

COURSE = notebooks.notebooks_dir()


@pytest.mark.parametrize("name", notebooks.lessons(COURSE))
def test_lesson_is_built_paired_and_clean(name):
    """Fails when notebook and text differ, or when an output is stale against its code."""
    assert notebooks.check(name) == []


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = write_lesson(tmp_path_factory.mktemp("built"), "01_good")
    about = notebooks.build("01_good", folder)
    assert about["profile"] == "cpu" and 0 <= about["minutes"] < 5 and about["commit"]
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "notebooks")


def edit(folder, old, new):
    path = folder / "py" / "01_good.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change(folder, function):
    path = folder / "01_good.ipynb"
    notebook = nbformat.read(path, as_version=4)
    function(notebook)
    nbformat.write(notebook, path)


def test_a_built_lesson_passes(folder):
    assert notebooks.check("01_good", folder) == []
    notebook = notebooks.read_lesson(folder, "01_good")
    assert notebook.cells[1].outputs[0].text == "cpu 1\n"
    assert "image/png" in notebook.cells[3].outputs[-1].data
    assert notebook.cells[2].metadata.tags == ["nbval-check-output"]
    assert notebook.cells[3].metadata.slideshow == {"slide_type": "slide"}
    for text in (notebook.cells[0].source, (folder / "py" / "01_good.py").read_text()):
        assert "<!-- minutes -->less than a minute to run (cpu profile)<!-- /minutes -->" in text


def test_building_again_changes_nothing(folder):
    files = [folder / "01_good.ipynb", folder / "py" / "01_good.py"]
    before = [(path.read_text(), path.stat().st_mtime_ns) for path in files]
    notebooks.build("01_good", folder)
    assert [(path.read_text(), path.stat().st_mtime_ns) for path in files] == before


def test_an_edit_of_the_text_is_seen_and_sync_then_tells_the_stale_outputs(folder):
    edit(folder, "6 * 7", "6 * 8")
    assert any("cell 2 differs" in problem for problem in notebooks.check("01_good", folder))
    assert notebooks.sync("01_good", folder)
    problems = notebooks.check("01_good", folder)
    assert "stale from code cell 2 on" in problems[0]
    assert notebooks.read_lesson(folder, "01_good").cells[1].outputs  # unchanged cells keep theirs
    assert not notebooks.sync("01_good", folder)


def test_an_edit_of_the_title_needs_no_new_run(folder):
    edit(folder, "# A lesson", "# Another title")
    notebooks.sync("01_good", folder)
    assert notebooks.check("01_good", folder) == []


def test_an_edit_of_the_notebook_reaches_the_text(folder):
    change(folder, lambda notebook: notebook.cells[0].update(source=notebook.cells[0].source + "\nMore."))
    assert any("cell 0 differs" in problem for problem in notebooks.check("01_good", folder))
    assert notebooks.sync("01_good", folder, from_notebook=True)
    assert "# More." in (folder / "py" / "01_good.py").read_text()
    assert notebooks.check("01_good", folder) == []


def test_a_lost_tag_is_seen(folder):
    edit(folder, ' tags=["nbval-check-output"]', "")
    assert any("cell 2 differs" in problem for problem in notebooks.check("01_good", folder))


def test_an_inserted_cell_is_seen(folder):
    edit(folder, "# %% slideshow", "# %%\n1\n\n# %% slideshow")
    assert any("4 cells, its text 5" in problem for problem in notebooks.check("01_good", folder))


def test_an_unbuilt_notebook_is_seen(folder):
    change(folder, lambda notebook: notebook.metadata.pop("seminar"))
    assert any("was not executed" in problem for problem in notebooks.check("01_good", folder))
    (folder / "01_good.ipynb").unlink()
    assert "is missing" in notebooks.check("01_good", folder)[0]


def test_minutes_in_the_title_agree_with_the_metadata(folder):
    change(folder, lambda notebook: notebook.metadata.seminar.update(minutes=9))
    assert any("does not give the measured minutes" in problem for problem in notebooks.check("01_good", folder))


def test_a_failing_lesson_is_not_built(tmp_path):
    folder = write_lesson(tmp_path, "01_bad", "\n# %%\n1 / 0\n")
    with pytest.raises(SeminarError, match="(?s)code cell 1 failed.*1 / 0.*ZeroDivisionError"):
        notebooks.build("01_bad", folder)
    assert not (folder / "01_bad.ipynb").exists()


def test_a_text_edited_during_the_build_is_not_overwritten(folder):
    path = folder / "py" / "01_good.py"
    stored = (folder / "01_good.ipynb").read_text()
    with pytest.raises(SeminarError, match="changed while it was executed"):
        notebooks.build("01_good", folder, on_cell=lambda number: path.write_text(path.read_text() + "# more\n"))
    assert "# more" in path.read_text() and (folder / "01_good.ipynb").read_text() == stored


def test_rows_of_data_that_is_not_here_survive_a_build(tmp_path):
    shipped = tmp_path / "data" / "results" / "01_x.jsonl"
    shipped.parent.mkdir(parents=True)
    rows = [f'{{"experiment": "{name}", "value": 1}}' for name in ("measured", "needs.data", "renamed")]
    shipped.write_text("\n".join(rows) + "\n")
    with rows_that_ship(tmp_path / "notebooks", "01_x", 'measure("measured"); live("needs.data")') as keep:
        fresh = Path(os.environ["SEMINAR_RESULTS"])
        fresh.write_text('{"experiment": "measured", "value": 2}\n')
        keep()
    assert shipped.read_text().splitlines() == [rows[1], '{"experiment": "measured", "value": 2}']
    assert not fresh.exists() and os.environ["SEMINAR_RESULTS"] != str(fresh)


def test_a_title_without_the_marks_is_refused_before_anything_runs(tmp_path):
    folder = write_lesson(tmp_path, "01_x")
    path = folder / "py" / "01_x.py"
    path.write_text(path.read_text().replace("<!-- minutes -->", ""))
    with pytest.raises(SeminarError, match="needs the marks"):
        notebooks.build("01_x", folder)


def test_a_damaged_notebook_is_one_clear_error(folder):
    (folder / "01_good.ipynb").write_text('{"cells": [')
    with pytest.raises(SeminarError, match="can't be read as a notebook"):
        notebooks.check("01_good", folder)


@pytest.mark.parametrize(
    ("before", "measured", "after"),
    [(None, 3.14, 3.1), (3.1, 3.6, 3.1), (3.1, 4.5, 4.5), (0.2, 0.5, 0.2), (5, 2, 2)],
)
def test_minutes_stay_unless_they_really_change(before, measured, after):
    assert notebooks.steady_minutes(before, measured) == after


def test_minutes_in_words():
    assert notebooks.minutes_text(0.1) == "less than a minute to run (cpu profile)"
    assert notebooks.minutes_text(0.9) == "about 1 minute to run (cpu profile)"
    assert notebooks.minutes_text(2.6) == "about 3 minutes to run (cpu profile)"


def output(kind, **fields):
    return nbformat.v4.new_output(kind, **fields)


BAD_OUTPUTS = {
    "stores an error": output("error", ename="E", evalue="", traceback=[]),
    "stores a warning": output("stream", name="stderr", text="UserWarning: x"),
    "stores a widget": output("display_data", data={"application/vnd.jupyter.widget-view+json": {}}),
    "path of this machine: '/tmp/x": output("stream", name="stdout", text="saved to /tmp/x.npz"),
    "path of this machine: '/home/": output("display_data", data={"text/html": "<b>/home/ann/x</b>"}),
    "path of this machine: 'C:": output("stream", name="stdout", text=r"C:\Users\ann\x"),
    "a memory address": output("execute_result", data={"text/plain": "<A at 0x7f10ab3400>"}, execution_count=1),
}


@pytest.mark.parametrize("problem", BAD_OUTPUTS)
def test_what_may_not_be_stored(problem):
    cell = nbformat.v4.new_code_cell("x", outputs=[BAD_OUTPUTS[problem]], execution_count=1)
    assert any(problem in said for said in output_problems(cell, 1)), output_problems(cell, 1)


def test_what_may_be_stored():
    fine = output("display_data", data={"text/plain": "https://example.org/home/x 3/work/4 data/results"})
    cell = nbformat.v4.new_code_cell("x", outputs=[fine], execution_count=1)
    assert output_problems(cell, 1) == []
    assert output_problems(cell, 2) == ["its execution number is out of order"]


def test_a_large_file_and_widget_state_are_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_bytes(b" " * 1_500_001)
    notebook = nbformat.v4.new_notebook(
        metadata={"widgets": {}}, cells=[nbformat.v4.new_markdown_cell("see /home/ann")]
    )
    problems = " ".join(source_problems(notebook, path))
    assert "1.5 MB" in problems and "widgets" in problems and "names a path" in problems


def test_cleaning_joins_streams_and_drops_widgets_and_times():
    parts = [output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    widget = output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Slider()"}
    )
    cell = nbformat.v4.new_code_cell("x", outputs=[*parts, widget], metadata={"execution": {"t": "1"}})
    clean_cell(cell, 4)
    assert [item.text for item in cell.outputs] == ["a\nb\n"]
    assert cell.execution_count == 4 and "execution" not in cell.metadata


def png_of(pixels):
    drawn = io.BytesIO()
    Image.fromarray(pixels).save(drawn, "PNG")
    return base64.b64encode(drawn.getvalue()).decode()


def cleaned(stored):
    cell = nbformat.v4.new_code_cell("x", outputs=[output("display_data", data={"image/png": stored})])
    clean_cell(cell, 1)
    return cell.outputs[0].data["image/png"]


def test_cleaning_makes_drawings_small_and_leaves_photographs():
    rng = np.random.default_rng(0)
    drawing = np.full((200, 200, 4), 255, np.uint8)
    drawing[50:100, 50:100, :3] = rng.integers(0, 6, (50, 50, 1)) * 50
    stored = png_of(drawing)
    small = cleaned(stored)
    picture = Image.open(io.BytesIO(base64.b64decode(small)))
    assert len(small) < len(stored) and np.array_equal(np.asarray(picture.convert("RGBA")), drawing)
    assert cleaned(small) == small
    photograph = png_of(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    assert cleaned(photograph) == photograph
