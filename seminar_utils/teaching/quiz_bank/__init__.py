"""The quizzes of the course, one module per lesson (`lesson_11_tent` for "11_tent"), each with QUESTIONS."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ...runtime import unknown_name
from .base import Option, Question

__all__ = ["Option", "Question", "lessons_with_quiz", "questions"]

PREFIX = "lesson_"


def lessons_with_quiz() -> list[str]:
    """Names of the lessons that have a quiz, in order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def questions(lesson: str) -> tuple[Question, ...]:
    """The questions of a lesson such as "11_tent". Raises SeminarError for a lesson without a quiz."""
    if lesson not in lessons_with_quiz():
        raise unknown_name("quiz", lesson, lessons_with_quiz())
    return import_module(f"{__name__}.{PREFIX}{lesson}").QUESTIONS
