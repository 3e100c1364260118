"""The exercises of the course, one module per lesson, each with a tuple `EXERCISES`."""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module

from ...runtime import unknown_name
from .base import Case, Exercise, WrongAnswer

__all__ = ["Case", "Exercise", "WrongAnswer", "all_exercises", "find_exercise"]


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """Every exercise by id, in the order of the lessons (modules `lesson_00_...`, `lesson_01_...`)."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name.startswith("lesson_"))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return {exercise.id: exercise for module in modules for exercise in module.EXERCISES}


def find_exercise(exercise_id: str) -> Exercise:
    """The exercise of that id. Raises SeminarError with the nearest ids for an unknown one."""
    known = all_exercises()
    if exercise_id not in known:
        raise unknown_name("exercise", exercise_id, known)
    return known[exercise_id]
