"""Trying a student's function on the cases of an exercise and finding the smallest counterexample."""

from __future__ import annotations

import contextlib
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .exercise_bank import Case, Exercise, WrongAnswer
from .notes import compact


@dataclass(frozen=True)
class Verdict:
    """What came of an answer: `state` is "to do", "right" or "wrong"; `lines` hold the counterexample."""

    state: str
    cases: int
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Mismatch:
    """The first place where two outcomes differ; `where` is a path such as "parameters['weight']"."""

    where: str
    got: Any
    expected: Any
    problem: str


def judge(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    """Run `function` on every case until one fails; the cases go from simple to complex.

    A function that raises NotImplementedError itself on the first case was not started. An endless loop
    is not caught: interrupt the kernel (Kernel > Interrupt), nothing is lost.
    """
    cases = exercise.cases()
    again = [with_gradients(case, exercise.gradient_to) for case in cases] if exercise.gradient_to else []
    for case in [*cases, *again]:
        try:
            lines = try_case(exercise, case, function)
        except _NotStarted:
            return Verdict("to do", len(cases))
        if lines:
            return Verdict("wrong", len(cases), lines)
    return Verdict("right", len(cases))


def with_gradients(case: Case, names: tuple[str, ...]) -> Case:
    """The same case, its arguments of these names asking for a gradient."""

    def make() -> dict[str, Any]:
        return {name: v.requires_grad_() if name in names else v for name, v in case.make().items()}

    note = "; ".join([*filter(None, [case.note]), f"a gradient must reach {', '.join(names)}"])
    return replace(case, make=make, note=note, gradient_to=names)


def gradients(result: Any, arguments: dict[str, Any], names: tuple[str, ...]) -> dict[str, Tensor]:
    """What `result` (a tensor or several), weighted so that no two of its numbers count the same, sends back."""
    lost = "stay in torch, without detach, item, float or no_grad"
    parts = result if isinstance(result, (tuple, list)) else [result]
    learnt = [part for part in parts if isinstance(part, Tensor) and part.requires_grad]
    if not learnt:
        raise WrongAnswer(f"no gradient flows back to {', '.join(names)}: {lost}")
    total = sum((part * torch.linspace(1, 2, part.numel()).view_as(part)).sum() for part in learnt)
    found = torch.autograd.grad(total, [arguments[name] for name in names], allow_unused=True)
    for name, gradient in zip(names, found):
        if gradient is None:
            raise WrongAnswer(f"no gradient reaches {name}: {lost}")
    return {f"gradient to {name}": gradient for name, gradient in zip(names, found)}


class _NotStarted(Exception):
    """The student's function still raises NotImplementedError."""


def try_case(exercise: Exercise, case: Case, function: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    """The counterexample as (label, text) lines; empty when the answer agrees with the reference."""
    with private_randomness():
        untouched = case.make()
    asked = [("input", ", ".join(f"{name} = {compact(value)}" for name, value in untouched.items()))]
    asked += [("note", case.note)] if case.note else []
    with private_randomness():
        expected = _outcome(exercise, case, exercise.reference)[0]
    try:
        with private_randomness():
            got, arguments = _outcome(exercise, case, function)
    except WrongAnswer as complaint:
        return (*asked, ("problem", str(complaint)))
    except Exception as error:  # whatever a student's code raises is part of the answer
        if _raised_by(function, error):
            raise _NotStarted from error
        return (*asked, ("problem", describe_error(function, error)))
    changed = [name for name in untouched if not unchanged(untouched[name], arguments[name])]
    if case.keep_input and changed:
        return (*asked, ("problem", f"your function changed its input {changed[0]!r} in place"))
    mismatch = compare(got, expected, exercise.tolerance)
    if mismatch is None:
        return ()
    where = f" ({mismatch.where})" if mismatch.where else ""
    results = [("got" + where, compact(mismatch.got)), ("expected" + where, compact(mismatch.expected))]
    return (*asked, *results, ("problem", mismatch.problem))


def _outcome(exercise: Exercise, case: Case, function: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    arguments = case.make()
    if case.gradient_to:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would advise to cut the gradient off
            result = function(*arguments.values())
        return gradients(result, arguments, case.gradient_to), arguments
    result = function(*arguments.values())
    return exercise.observe(result, arguments), arguments


@contextlib.contextmanager
def private_randomness(seed: int = 0) -> Iterator[None]:
    """Seed the random generators inside, and put the notebook's own back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _raised_by(function: Callable[..., Any], error: Exception) -> bool:
    """True when `function` itself (not something it called) raised NotImplementedError."""
    frames = list(traceback.walk_tb(error.__traceback__))
    innermost = frames[-1][0].f_code
    return type(error) is NotImplementedError and innermost is getattr(function, "__code__", None)


def describe_error(function: Callable[..., Any], error: Exception) -> str:
    """One or two lines: the error, and the student's line in which it came up."""
    name = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    own_file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [f.line for f in traceback.extract_tb(error.__traceback__) if f.filename == own_file and f.line]
    return f"it raised {name}" + (f", in your line: {lines[-1]}" if lines else "")


def unchanged(before: Any, after: Any) -> bool:
    """True when an argument still holds what it held (tensors, arrays, lists, modules' state)."""
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, nn.Module):
        now = after.state_dict()
        return all(torch.equal(value, now[name]) for name, value in before.state_dict().items())
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(unchanged(one, now) for one, now in zip(before, after))
    return before == after if isinstance(before, (dict, int, float, str)) else True


def compare(got: Any, expected: Any, tolerance: float, where: str = "") -> Mismatch | None:
    """The first difference between two outcomes, or None.

    Tensors and arrays must agree in type, dtype and shape; numbers may be Python, numpy or 0-d tensors;
    a sequence may be any kind of sequence. |got - expected| <= tolerance + tolerance * |expected|.
    """
    if got is None:
        return Mismatch(where, got, expected, "the function returned None: is the `return` missing?")
    if isinstance(expected, (Tensor, np.ndarray)):
        return _compare_arrays(got, expected, tolerance, where)
    if isinstance(expected, dict):
        pairs = [(f"{where}[{key!r}]" if where else key, got[key], expected[key]) for key in expected]
    elif isinstance(expected, (list, tuple)):
        if not isinstance(got, Sized) or isinstance(got, (str, dict)) or len(got) != len(expected):
            came = f"{len(got)} values" if isinstance(got, Sized) else _kind(got)
            return Mismatch(where, got, expected, f"expected {len(expected)} values, got {came}")
        pairs = [(f"{where}[{i}]", got[i], expected[i]) for i in range(len(expected))]
    else:
        return _compare_numbers(got, expected, tolerance, where)
    return next((m for key, g, e in pairs if (m := compare(g, e, tolerance, key))), None)


def _kind(value: Any) -> str:
    return "a torch.Tensor" if isinstance(value, Tensor) else f"a value of type {type(value).__name__}"


def _compare_arrays(got: Any, expected: Any, tolerance: float, where: str) -> Mismatch | None:
    if not isinstance(got, type(expected)) and not (isinstance(got, Tensor) and isinstance(expected, Tensor)):
        return Mismatch(where, got, expected, f"expected {_kind(expected)}, got {_kind(got)}")
    if tuple(got.shape) != tuple(expected.shape):
        shapes = f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
        return Mismatch(where, got, expected, shapes)
    if got.dtype != expected.dtype:
        return Mismatch(where, got, expected, f"expected dtype {expected.dtype}, got {got.dtype}")
    mine, truth = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for v in (got, expected))
    mine, truth = mine.astype(np.float64), truth.astype(np.float64)
    if not np.isfinite(mine).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(mine))[0])
        return Mismatch(where, got, expected, f"there is a {mine[place]} at {list(place)}")
    gap = np.abs(mine - truth)
    if (gap <= tolerance + tolerance * np.abs(truth)).all():
        return None
    place = np.unravel_index(int(gap.argmax()), gap.shape)
    largest = f"largest |difference| {gap[place]:.3g} at {[int(i) for i in place]}"
    return Mismatch(where, got, expected, largest)


def _compare_numbers(got: Any, expected: Any, tolerance: float, where: str) -> Mismatch | None:
    if isinstance(got, (Tensor, np.ndarray, np.generic)) and np.ndim(got) == 0:
        got = got.item()
    wanted = bool if isinstance(expected, bool) else int if isinstance(expected, int) else (int, float)
    if not isinstance(got, wanted) or (isinstance(got, bool) and wanted is not bool):
        name = type(expected).__name__
        return Mismatch(where, got, expected, f"expected one {name}, got {_kind(got)}")
    if np.isfinite(got) and abs(got - expected) <= tolerance + tolerance * abs(expected):
        return None
    problem = "" if isinstance(expected, bool) else f"it differs by {abs(got - expected):.3g}"
    return Mismatch(where, got, expected, problem or f"{got} where {expected} is right")
