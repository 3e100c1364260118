"""The README says only what the store and the stored notebooks say."""

import re

import pytest

from seminar_utils.runtime import SeminarError, repository
from seminar_utils.teaching import readme
from seminar_utils.teaching.lessons import COURSE

ROOT = repository()


def test_the_readme_and_its_pictures_are_current():
    assert readme.update(check=True) == []


def test_every_number_in_the_readme_comes_from_the_store():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"<!-- number: (\S+) -->", text))
    assert keys == set(readme.NUMBERS)
    story = text.split("## The story")[1].split("*Balanced accuracy")[0]
    outside = re.sub(r"<!-- number: \S+ -->.*?<!-- /number -->", "", story)
    assert not re.findall(r"\d+[.,]\d+|\d+ ?%|\[\d", outside)


def test_a_changed_number_is_noticed():
    text = "right in <!-- number: source-shifted -->12 [3, 99]<!-- /number --> of 100"
    assert readme.render(text, ROOT) != text
    with pytest.raises(SeminarError, match="source-shifted"):
        readme.render("<!-- number: source-shiftet -->1<!-- /number -->", ROOT)


def test_all_pictures_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((docs/\S+)\)", text)
    assert linked and all((ROOT / path).is_file() for path in linked)


def test_the_course_has_its_seventeen_lessons():
    assert [int(lesson.name[:2]) for lesson in COURSE] == list(range(17))
    table = readme.lesson_table(ROOT)
    assert table.count("| ready |") == len(list((ROOT / "notebooks").glob("[0-9]*.ipynb")))
