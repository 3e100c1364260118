"""Exercises of lesson 09: calibration error, an honest threshold, correlated patients, patients redrawn, Holm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...evaluation.ranking import sensitivity_at_specificity
from .base import Case, Exercise, WrongAnswer


def operating_point(
    val_labels: np.ndarray, val_scores: np.ndarray, labels: np.ndarray, scores: np.ndarray, specificity: float
) -> tuple[float, float]:
    """(sensitivity, specificity) on test images of "ill if score > t", with t fixed on validation images.

    labels: 0 / 1, scores: any scale. t is the lowest validation score of a healthy patient that keeps at least
    `specificity` of the healthy validation patients at or under it.
    """
    point = sensitivity_at_specificity(val_labels, val_scores, labels, scores, specificity)
    return point.sensitivity, point.specificity


def deal_out(count: int, shares: np.ndarray) -> np.ndarray:
    """In which stretch of time does each of the `count` patients of one class come? Integers (count,).

    shares (T,): which part of the class comes in each stretch, summing to 1. Patient j stands at (j + 1/2) / count
    of the class, and comes in the first stretch up to whose end that part of the class has come.
    """
    places = (np.arange(count) + 0.5) / count  # (count,), in (0, 1)
    ends = np.cumsum(shares)  # (T,), the last about 1
    return np.minimum(np.searchsorted(ends, places), len(shares) - 1)


def draw_patients(patients: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The rows of the drawn patients: all rows of each, as often as he was drawn. Integers (M,), any order.

    patients (N,): whose image each row is; drawn (P,): ids of patients, with repeats.
    """
    rows_of = {patient: np.flatnonzero(patients == patient) for patient in np.unique(patients)}
    return np.concatenate([rows_of[patient] for patient in drawn])


def _ece(probs: list[list[float]], labels: list[int], bins: int) -> Case:
    return Case(lambda: {"probs": np.array(probs), "labels": np.array(labels), "bins": bins})


def _many_answers() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"probs": rng.dirichlet(np.full(4, 0.5), 300), "labels": rng.integers(0, 4, 300), "bins": 15}


def ece_cases() -> list[Case]:
    """One bin; two bins of unequal size; gaps that would cancel; an edge; a certain answer; many answers."""
    return [
        _ece([[0.9, 0.1], [0.6, 0.4]], [0, 1], 2),
        _ece([[0.95, 0.05], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 0, 1, 0], 4),
        _ece([[0.6, 0.4], [0.9, 0.1]], [0, 1], 5),
        _ece([[0.25, 0.75], [0.125, 0.875], [0.0, 1.0]], [1, 0, 1], 4),
        _ece([[1.0, 0.0, 0.0], [0.1, 0.2, 0.7]], [0, 1], 3),
        Case(_many_answers),
    ]


def _point(val: tuple[list, list], test: tuple[list, list], specificity: float) -> Case:
    arrays = [np.array(values) for values in (*val, *test)]
    names = ("val_labels", "val_scores", "labels", "scores")
    return Case(lambda: {**dict(zip(names, (a.copy() for a in arrays))), "specificity": specificity})


def _shifted_scores() -> dict[str, Any]:
    """Forty validation and sixty test patients, whose scores are all higher: as on a new scanner."""
    rng = np.random.default_rng(0)
    val_labels, labels = np.arange(40) % 2, np.arange(60) % 3 % 2
    val_scores, scores = val_labels + rng.normal(size=40), labels + 0.8 + rng.normal(size=60)
    both = {"val_labels": val_labels, "val_scores": val_scores, "labels": labels, "scores": scores}
    return {**both, "specificity": 0.83}


def operating_point_cases() -> list[Case]:
    """Four healthy patients; scores at the threshold itself; another prevalence; 0.9 of seven; all shifted."""
    val = ([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.35, 0.9])
    seven = ([0] * 7 + [1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    return [
        _point(val, ([0, 0, 1, 1], [0.25, 0.5, 0.32, 0.8]), 0.75),
        _point(val, ([0, 0, 1, 1], [0.3, 0.1, 0.3, 0.31]), 0.75),
        _point(val, ([0, 1, 1, 1, 1], [0.35, 0.2, 0.33, 0.36, 0.41]), 0.6),
        _point(seven, ([0, 0, 1, 1], [0.55, 0.65, 0.62, 0.75]), 0.9),
        Case(_shifted_scores),
    ]


def _deal(count: int, shares: list[float]) -> Case:
    return Case(lambda: {"count": count, "shares": np.array(shares)})


def deal_out_cases() -> list[Case]:
    """Halves; an odd patient; empty stretches; shares of less than a patient; a Dirichlet draw."""
    return [
        _deal(4, [0.5, 0.5]),
        _deal(3, [0.5, 0.5]),
        _deal(3, [0.0, 1.0, 0.0]),
        _deal(5, [0.25, 0.25, 0.25, 0.25]),
        _deal(2, [0.1, 0.3, 0.3, 0.3]),
        Case(lambda: {"count": 40, "shares": np.random.default_rng(0).dirichlet(np.full(8, 0.3))}),
    ]


def whole_numbers(result: Any, arguments: dict[str, Any]) -> np.ndarray:
    """A list or array of whole numbers as an array."""
    rows = np.asarray(result)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise WrongAnswer(f"expected whole numbers in one row, got {rows.dtype} of shape {rows.shape}")
    return rows.astype(int)


def rows_in_any_order(result: Any, arguments: dict[str, Any]) -> np.ndarray:
    """The rows, sorted: a resample is a bag."""
    return np.sort(whole_numbers(result, arguments))


def _patients(patients: list[int], drawn: list[int]) -> Case:
    return Case(lambda: {"patients": np.array(patients), "drawn": np.array(drawn)})


def draw_patients_cases() -> list[Case]:
    """Everybody once; one twice; patients with one image and with four; ids that are no row numbers."""
    return [
        _patients([0, 0, 1], [0, 1]),
        _patients([0, 0, 1], [0, 0]),
        _patients([2, 0, 1, 0, 0, 2, 0], [2, 1, 2]),
        _patients([41, 17, 41, 17, 17, 90], [17, 90, 17]),
    ]


def _p_values(values: list[float]) -> Case:
    return Case(lambda: {"p_values": np.array(values)})


def holm_cases() -> list[Case]:
    """One comparison; two; one that must not overtake a smaller one; nothing to find; seven, unsorted."""
    return [
        _p_values([0.03]),
        _p_values([0.04, 0.01]),
        _p_values([0.01, 0.011, 0.04]),
        _p_values([0.6, 0.9]),
        _p_values([0.02, 0.5, 0.001, 0.03, 0.008, 0.2, 0.012]),
    ]


EXERCISES = (
    Exercise(
        id="eval.ece",
        lesson="09_evaluating_under_shift",
        title="the expected calibration error",
        difficulty=1,
        minutes=8,
        implementation="seminar_utils.evaluation.calibration:expected_calibration_error",
        cases=ece_cases,
        hints=(
            "The confidence is the LARGEST probability of a row, whatever the label is; an answer is right when "
            "its class is the label. What is compared in one bin?",
            "In each bin: |mean confidence - share of right answers|. Then average over the bins, each weighted "
            "by its number of answers; empty bins weigh nothing. A confidence on an edge is in the bin below.",
            "index = np.ceil(confidence * bins).astype(int) - 1; for b in np.unique(index): inside = index == b; "
            "add inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())",
        ),
    ),
    Exercise(
        id="eval.operating_point",
        lesson="09_evaluating_under_shift",
        title="a threshold that never saw the test",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:operating_point",
        cases=operating_point_cases,
        hints=(
            "Two steps that must not be mixed: fix the threshold on the validation patients, then count on the "
            "test patients. The specificity you reach there need not be the one you asked for.",
            "Only HEALTHY validation patients decide. Sort their scores: so many of them, rounded up, must stay "
            "at or under the threshold. A score equal to the threshold is called healthy.",
            "healthy = np.sort(val_scores[val_labels == 0]); keep = math.ceil(specificity * len(healthy) - 1e-9); "
            "t = healthy[keep - 1]; then (scores[labels == 1] > t).mean() and (scores[labels == 0] <= t).mean()",
        ),
    ),
    Exercise(
        id="eval.deal_out",
        lesson="09_evaluating_under_shift",
        title="one class dealt out over time",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:deal_out",
        cases=deal_out_cases,
        observe=whole_numbers,
        hints=(
            "Shares become whole patients without rounding each of them: put the patients on a line from 0 to 1 "
            "and the stretches, one after another, on the same line.",
            "Patient j sits in the middle of his piece, at (j + 0.5) / count. The stretches end at "
            "np.cumsum(shares). Which stretch does a place fall into?",
            "np.searchsorted(np.cumsum(shares), (np.arange(count) + 0.5) / count)",
        ),
    ),
    Exercise(
        id="eval.draw_patients",
        lesson="09_evaluating_under_shift",
        title="a bootstrap that draws patients, not images",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:draw_patients",
        cases=draw_patients_cases,
        observe=rows_in_any_order,
        hints=(
            "What is independent is the patient. When he is drawn, all his images come; when he is drawn twice, "
            "they come twice.",
            "A mask such as np.isin(patients, drawn) says who was drawn, not how often. The ids are names, "
            "not row numbers.",
            "np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])",
        ),
    ),
    Exercise(
        id="eval.holm",
        lesson="09_evaluating_under_shift",
        title="many comparisons: Holm's correction",
        difficulty=3,
        minutes=12,
        implementation="seminar_utils.evaluation.differences:holm",
        cases=holm_cases,
        hints=(
            "Sort the m p-values. The smallest had m rivals, the next only m - 1, and so on: multiply each by "
            "the number of those that are left, itself included.",
            "An adjusted p must not be smaller than that of a comparison with a smaller p: take the running "
            "maximum along the sorted values. And no p is above 1. Give them back in the order they came in.",
            "order = np.argsort(p); steps = (m - np.arange(m)) * p[order]; "
            "out[order] = np.minimum(np.maximum.accumulate(steps), 1)",
        ),
    ),
)
