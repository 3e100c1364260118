"""Exercises inside the lessons: one notebook for everybody.

A blank is a function that raises NotImplementedError; the next line hands it in:

    def entropy(logits): raise NotImplementedError
    entropy = exercise("tent.entropy", entropy)

The course's version comes back until yours is right, so the notebook always runs to its end.
"""

from __future__ import annotations

import functools
import hashlib
import html
import inspect
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..runtime import SeminarError
from .exercise_bank import Exercise, all_exercises, find_exercise
from .judging import Verdict, judge
from .notes import Note, made_by_the_course, show
from .progress_file import FRESH, ProgressFile, progress_path


@functools.cache
def _progress_at(path: Path | None) -> ProgressFile:
    return ProgressFile(path)


def _progress() -> ProgressFile:
    """The student's file; memory alone when the course executes, whose stored outputs depend on nothing."""
    return _progress_at(None if made_by_the_course() else progress_path())


def exercise(exercise_id: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand in an answer; returns yours when it is right, else the course's own function.

    Shows a quiet "to do" when `function` was not started, and when it is wrong the smallest
    counterexample with a hint (a bigger one at each new wrong answer). Raises SeminarError for an
    unknown id or something that cannot be called. An endless loop is not caught: interrupt the kernel.
    """
    task = find_exercise(exercise_id)
    if not callable(function):
        raise SeminarError(f"exercise({exercise_id!r}, ...) takes a function, got {type(function).__name__}")
    verdict = judge(task, function)
    if verdict.state == "to do":
        show(to_do_note(task))
        return task.reference
    if verdict.state == "right":
        _progress().update(exercise_id, state="right")
        show(right_note(task, verdict))
        return function
    show(wrong_note(task, verdict, _count_wrong_attempt(task, function)))
    return task.reference


def to_do_note(task: Exercise) -> Note:
    """The mark of an exercise not started: the same on every machine and at every time."""
    stars = f"difficulty {task.difficulty} of 3, about {task.minutes} min"
    push = f'Until it is done, the course\'s own version is used. hint("{task.id}") gives a push.'
    return Note(f"to do   {task.id}: {task.title} ({stars})\n        {push}", "to do")


def right_note(task: Exercise, verdict: Verdict) -> Note:
    """What a right answer gets to see."""
    return Note(f"right   {task.id}: all {verdict.cases} cases agree. From here on your version is used.", "right")


def wrong_note(task: Exercise, verdict: Verdict, attempt: int) -> Note:
    """The counterexample, and a hint that grows with the number of wrong attempts."""
    level = min(attempt, len(task.hints))
    lines = [*verdict.lines, (f"hint {level}", task.hints[level - 1])]
    body = "\n".join(_indented(f"{label}: ", text) for label, text in lines)
    end = f'Meanwhile the course\'s own version is used. More: hint("{task.id}"), solution("{task.id}").'
    return Note(f"not yet {task.id}: attempt {attempt}\n{body}\n        {end}", "wrong")


def _indented(label: str, text: str) -> str:
    """Eight blanks before the label; further lines (rows of an array) two more."""
    return textwrap.indent(label + text.strip().replace("\n", "\n  "), " " * 8)


def _count_wrong_attempt(task: Exercise, function: Callable[..., Any]) -> int:
    """Number of this wrong attempt; running the same wrong answer again is not a new one."""
    entry = _progress().get(task.id)
    answer = fingerprint(function)
    attempts = entry["attempts"] + (answer != entry["last_wrong"] or not entry["attempts"])
    hints = max(entry["hints"], min(attempts, len(task.hints)))
    state = "right" if entry["state"] == "right" else "wrong"  # what was solved once stays solved
    _progress().update(task.id, state=state, attempts=attempts, hints=hints, last_wrong=answer)
    return attempts


def fingerprint(function: Callable[..., Any]) -> str:
    """A short print of what a function does, to tell a new answer from the same one run again."""
    given = [getattr(function, name, None) for name in ("args", "keywords")]  # of a functools.partial
    function = getattr(function, "func", function)
    content = [_instructions(getattr(function, "__code__", None)), getattr(function, "__defaults__", None), given]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _instructions(code: Any) -> list[Any]:
    """Byte code, names and constants, those of inner functions and comprehensions included."""
    inner = [_instructions(c) if inspect.iscode(c) else c for c in getattr(code, "co_consts", ())]
    return [getattr(code, "co_code", b""), getattr(code, "co_names", ()), inner]


def hint(exercise_id: str, level: int | None = None) -> None:
    """Show the next hint of an exercise, or hint number `level` (from 1).

    Raises SeminarError for an unknown id or level.
    """
    task = find_exercise(exercise_id)
    count = len(task.hints)
    if level is None:
        level = min(_progress().get(exercise_id)["hints"] + 1, count)
    if not isinstance(level, int) or not 1 <= level <= count:
        raise SeminarError(f"{exercise_id} has hints 1 to {count}, got level {level!r}")
    seen = max(level, _progress().get(exercise_id)["hints"])
    _progress().update(exercise_id, hints=seen)
    last = f' (the last; solution("{exercise_id}") shows the code)' if level == count else ""
    show(Note(f"hint {level} of {count} for {exercise_id}{last}:\n{task.hints[level - 1]}"))


def solution(exercise_id: str) -> None:
    """Show the course's own source for an exercise, and that of the helpers beside it that it calls.

    Raises SeminarError for an unknown id.
    """
    task = find_exercise(exercise_id)
    module, name = task.implementation.split(":")
    beside = [getattr(import_module(module), called, None) for called in task.reference.__code__.co_names]
    helpers = [function for function in beside if inspect.isfunction(function) and function.__module__ == module]
    sources = [textwrap.dedent(inspect.getsource(function)).rstrip() for function in (task.reference, *helpers)]
    show(Note("\n\n\n".join([f"# {exercise_id} is {name} in {module.replace('.', '/')}.py", *sources])))


def progress() -> None:
    """Show every exercise of the course with its difficulty, minutes and state."""
    entries = _progress().entries()
    rows = [
        (
            t.lesson,
            t.id,
            t.title,
            str(t.difficulty),
            str(t.minutes),
            {**FRESH, **entries.get(t.id, {})}["state"],
        )
        for t in all_exercises().values()
    ]
    right = sum(row[-1] == "right" for row in rows)
    header = ("lesson", "exercise", "what", "difficulty", "minutes", "state")
    total = f"{right} of {len(rows)} exercises are right."
    show(Note(f"{text_table(header, rows)}\n{total}", "plain", html_table(header, rows) + f"<p>{total}</p>"))


def text_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns padded with blanks, a line under the header."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def html_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """The same table in HTML."""
    head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(c)}</td>' for c in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
