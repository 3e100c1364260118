"""What an exercise is: a reference, cases to try an answer on, and hints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class WrongAnswer(Exception):
    """Raised by an exercise's `observe` when an answer is wrong in a way a comparison cannot see."""


@dataclass(frozen=True)
class Case:
    """One call to try an answer on.

    `make` builds the arguments afresh (from fixed seeds), as a dict in the order of the signature: the
    student's function and the reference each get their own copy. `keep_input` forbids changing them. `note`
    says what the printed arguments do not show. With `gradient_to` (names of arguments) not the result is
    compared, but the gradient that it sends back to each of them.
    """

    make: Callable[[], dict[str, Any]]
    keep_input: bool = True
    note: str = ""
    gradient_to: tuple[str, ...] = ()


def outcome_only(result: Any, arguments: dict[str, Any]) -> Any:
    """The default `observe`: only what the function returned counts."""
    return result


@dataclass(frozen=True)
class Exercise:
    """One exercise of the course.

    Args: id: "tent.entropy"; lesson: "11_tent"; difficulty: 1 to 3; minutes: a fair guess for a student;
    implementation: "module:function" of the reference, imported when first needed; cases: gives the
    cases from simple to complex, so that the first that fails is the smallest counterexample;
    hints: from a push to nearly the answer; tolerance: largest |difference| - tolerance * |expected|;
    observe: (result, arguments) -> what is compared, for answers that also act on their arguments;
    gradient_to: arguments that a training moves: every case is tried once more, and an answer whose
    gradient does not reach them, or is another one, is wrong.
    """

    id: str
    lesson: str
    title: str
    difficulty: int
    minutes: int
    implementation: str
    cases: Callable[[], list[Case]]
    hints: tuple[str, ...]
    tolerance: float = 1e-4
    observe: Callable[[Any, dict[str, Any]], Any] = outcome_only
    gradient_to: tuple[str, ...] = ()

    @property
    def reference(self) -> Callable[..., Any]:
        """The course's own function for this exercise."""
        module, name = self.implementation.split(":")
        return getattr(import_module(module), name)
