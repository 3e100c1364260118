"""Short multiple-choice quizzes: buttons in a live notebook, a text with hidden answers in a stored one."""

from __future__ import annotations

import html
from dataclasses import dataclass

from ..runtime import SeminarError
from .notes import Note, is_static, show
from .quiz_bank import Question, questions

LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Feedback:
    """Whether the answer was right, and why."""

    right: bool
    why: str

    def __str__(self) -> str:
        return f"{'Right' if self.right else 'Not quite'}. {self.why}"


def check(question: Question, answer: str | int) -> Feedback:
    """Judge an answer given as a letter ("b") or a number from 0. Raises SeminarError for any other."""
    letters = LETTERS[: len(question.options)]
    if isinstance(answer, str) and len(answer.strip()) == 1:
        answer = letters.find(answer.strip().lower())
    if type(answer) is not int or not 0 <= answer < len(letters):
        raise SeminarError(f"an answer is a letter from {letters[0]} to {letters[-1]}, got {answer!r}")
    option = question.options[answer]
    return Feedback(option.right, option.why)


def quiz(lesson: str, answers: bool = False) -> None:
    """Show the quiz of a lesson such as "11_tent"; with `answers`, the text with all answers open.

    Live notebooks get buttons. Stored notebooks and terminals get the text, in HTML with each answer
    behind a click. Raises SeminarError for a lesson without a quiz.
    """
    asked = questions(lesson)
    if answers or is_static():
        show(static_quiz(lesson, asked, answers))
    else:
        show(live_quiz(asked))


def static_quiz(lesson: str, asked: tuple[Question, ...], answers: bool = False) -> Note:
    """The quiz as text, and as HTML whose answers are hidden in <details>."""
    blocks = [_text(number, question, answers) for number, question in enumerate(asked, 1)]
    if not answers:
        blocks.append(f'Answers: quiz("{lesson}", answers=True)')
    markup = "".join(_markup(number, question, answers) for number, question in enumerate(asked, 1))
    return Note("\n\n".join(blocks), "plain", markup)


def _text(number: int, question: Question, answers: bool) -> str:
    lines = [f"{number}. {question.prompt}"]
    for letter, option in zip(LETTERS, question.options):
        lines.append(f"   {letter}) {option.text}")
        if answers:
            lines.append(f"      {'RIGHT' if option.right else 'wrong'}: {option.why}")
    return "\n".join(lines)


def _markup(number: int, question: Question, answers: bool) -> str:
    options = "".join(f"<li>{html.escape(option.text)}</li>" for option in question.options)
    reasons = "".join(
        f"<li>{'<b>Right.</b>' if option.right else 'Not quite.'} {html.escape(option.why)}</li>"
        for option in question.options
    )
    listing = '<ol type="a">{}</ol>'.format
    return (
        f"<p><b>{number}.</b> {html.escape(question.prompt)}</p>{listing(options)}"
        f"<details{' open' if answers else ''}><summary>Answer</summary>{listing(reasons)}</details>"
    )


def live_quiz(asked: tuple[Question, ...]):
    """The quiz as ipywidgets: radio buttons, the reason below as soon as one is chosen."""
    import ipywidgets

    return ipywidgets.VBox([_live_question(number, question) for number, question in enumerate(asked, 1)])


def _live_question(number: int, question: Question):
    import ipywidgets

    prompt = ipywidgets.HTML(f"<b>{number}.</b> {html.escape(question.prompt)}")
    # (label, value) pairs: two options with the same words would still be two
    pairs = [(f"{letter}) {option.text}", i) for i, (letter, option) in enumerate(zip(LETTERS, question.options))]
    choice = ipywidgets.RadioButtons(options=pairs, value=None, layout={"width": "max-content"})
    reply = ipywidgets.HTML()

    def answered(change: dict) -> None:
        reply.value = html.escape(str(check(question, change["new"]))) if change["new"] is not None else ""

    choice.observe(answered, names="value")
    return ipywidgets.VBox([prompt, choice, reply])
