"""The quizzes: every question sound, the logic, the static and the live form."""

import re

import pytest

from seminar_utils.runtime import SeminarError
from seminar_utils.teaching.quiz import check, live_quiz, quiz, static_quiz
from seminar_utils.teaching.quiz_bank import Option, Question, lessons_with_quiz, questions

LESSONS = lessons_with_quiz()
EVERY = [(lesson, n) for lesson in LESSONS for n in range(len(questions(lesson)))]
ONE = Question("Is 2 > 1?", (Option("no", "Count <again>."), Option("yes", "2 = 1 + 1.", right=True)))


def test_a_quiz_has_four_to_six_questions():
    assert {"00_start_here", "01_resnet", "02_vision_transformer", "11_tent"} <= set(LESSONS)
    assert all(4 <= len(questions(lesson)) <= 6 for lesson in LESSONS)


@pytest.mark.parametrize("lesson, number", EVERY)
def test_question_has_one_right_option_and_a_reason_for_each(lesson, number):
    question = questions(lesson)[number]
    assert sum(option.right for option in question.options) == 1
    assert 3 <= len(question.options) <= 5
    assert len({option.text for option in question.options}) == len(question.options)
    assert all(len(option.why) > 20 and option.why.endswith((".", "?")) for option in question.options)


def test_the_right_answer_is_not_always_in_the_same_place():
    for lesson in LESSONS:
        places = {[o.right for o in question.options].index(True) for question in questions(lesson)}
        assert len(places) >= 2


def test_check():
    assert check(ONE, "b") == check(ONE, 1) == check(ONE, " B ")
    assert check(ONE, "b").right and str(check(ONE, "b")) == "Right. 2 = 1 + 1."
    assert str(check(ONE, 0)) == "Not quite. Count <again>."


@pytest.mark.parametrize("answer", ["c", "", "ab", 2, -1, None, True, 1.0])
def test_check_refuses_what_is_no_option(answer):
    with pytest.raises(SeminarError, match="a letter from a to b"):
        check(ONE, answer)


def test_static_text_hides_the_answers():
    note = static_quiz("x", (ONE,))
    assert "b) yes" in note.text and "2 = 1 + 1" not in note.text and 'quiz("x", answers=True)' in note.text
    assert "RIGHT: 2 = 1 + 1." in static_quiz("x", (ONE,), answers=True).text
    hidden = re.search(r"<details>(.*)</details>", note.markup).group(1)
    assert "2 = 1 + 1" in hidden and "2 = 1 + 1" not in note.markup.replace(hidden, "")
    assert "Count &lt;again&gt;." in hidden


def test_quiz_outside_a_notebook_prints_the_text(capsys):
    quiz("11_tent")
    assert capsys.readouterr().out.startswith("1. Which parameters does Tent move?")


def test_unknown_lesson():
    with pytest.raises(SeminarError, match="did you mean '11_tent'"):
        quiz("11_tant")


def test_live_quiz_answers_a_choice():
    box = live_quiz((ONE, ONE))
    prompt, choice, reply = box.children[1].children
    assert choice.value is None and reply.value == ""
    choice.value = 0
    assert reply.value == "Not quite. Count &lt;again&gt;."
    choice.value = 1
    assert reply.value.startswith("Right.")
    assert box.children[0].children[2].value == ""
