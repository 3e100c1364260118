"""Would you deploy it? One model, with or without adaptation, on one shift: the numbers, and rules in words.

The rules are few, their limits are arguments, and a number that can't be computed does not pass. A card speaks of
the images it was made with; it is no licence for another hospital.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..adaptation import Source
from ..runtime import SeminarError
from .checks import as_numpy, check_labels, check_probabilities
from .differences import Difference, is_real
from .intervals import Interval
from .metrics import gain_rate, harm_rate, predicted_class_entropy
from .report_numbers import Numbers, numbers_of, operating_point, show, worst_of
from .report_rules import Check, Limits, check_rules
from .streams import run_stream, stream


@dataclass(frozen=True)
class ReportCard:
    """Everything the page shows. `source` is the model without adaptation, None when that is what is judged."""

    model: str
    adaptation: str
    shift: str
    images: int
    class_names: tuple[str, ...]
    numbers: Numbers
    source: Numbers | None
    harm: float
    gain: float
    change: Difference | None
    limits: Limits
    checks: list[Check]

    @property
    def deploy(self) -> bool:
        """True when every rule passed."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        failed = sum(not check.passed for check in self.checks)
        if failed:
            return f"No: {failed} of {len(self.checks)} rules are broken on {self.shift}."
        return f"Yes, by these {len(self.checks)} rules, on {self.shift}, and with monitoring; nowhere else."

    def table(self, recalls: bool = True) -> list[tuple[str, ...]]:
        """Rows of words: the number's name, without adaptation (if the card has it), and of what is judged."""
        columns = [numbers for numbers in (self.source, self.numbers) if numbers is not None]
        lines = _lines(self, recalls)
        rows = [(name, *(say(numbers) for numbers in columns)) for name, say in lines.items()]
        if self.source is not None:
            rows += [("harmed: right before, wrong after", "", show(self.harm))]
            rows += [("helped: wrong before, right after", "", show(self.gain))]
        return rows

    def heading(self) -> tuple[str, ...]:
        """The heads of the table's columns."""
        return ("on the shift", *(("source",) if self.source is not None else ()), self.adaptation)

    def markdown(self) -> str:
        """The card as Markdown: verdict, table, rules."""
        lines = [f"**Would you deploy {self.model} with {self.adaptation}? {self.verdict}**", ""]
        lines += ["| " + " | ".join(self.heading()) + " |", "|" + "---|" * len(self.heading())]
        lines += ["| " + " | ".join(row) + " |" for row in self.table()]
        lines += ["", *(f"- {'pass' if c.passed else 'FAIL'}: {c.rule} Found: {c.found}." for c in self.checks)]
        return "\n".join([*lines, "", *([self.change.sentence] if self.change else [])])


def report_card(
    labels: ArrayLike,
    after: ArrayLike,
    before: ArrayLike | None = None,
    *,
    val_labels: ArrayLike | None = None,
    val_after: ArrayLike | None = None,
    val_before: ArrayLike | None = None,
    model: str = "model",
    adaptation: str = "no adaptation",
    shift: str = "this shift",
    class_names: Sequence[str] | None = None,
    positive: int | None = None,
    groups: ArrayLike | None = None,
    corruptions: Mapping[str, tuple[ArrayLike, ...]] | None = None,
    clusters: ArrayLike | None = None,
    limits: Limits | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> ReportCard:
    """Make the card from probabilities.

    Args: labels (N,) of the shifted images; after, before (N, K): probabilities with and without adaptation, in
    one order (without `before` the card is of an unadapted model); val_labels (M,), val_after, val_before (M, K):
    on validation images WITHOUT shift, where the threshold is fixed; positive: the class to detect (1 when there
    are two); groups (N,): hospital, scanner, sex ...; corruptions: name -> (labels, predictions after[, before])
    on other shifts, for the worst case; clusters (N,): patient ids; limits: see `Limits`; n_boot, seed: bootstrap.
    Raises SeminarError on malformed or unequal arrays. What can't be computed is NaN with a reason and fails.
    """
    labels = check_labels(labels)
    after = check_probabilities(after, labels)
    before = None if before is None else check_probabilities(before, labels)
    if before is not None and before.shape != after.shape:
        raise SeminarError(f"before and after differ in shape: {before.shape} and {after.shape}")
    names = _class_names(class_names, after.shape[1])
    positive = 1 if positive is None and len(names) == 2 else positive
    if positive is not None and not 0 <= positive < len(names):
        raise SeminarError(f"the positive class is one of 0 to {len(names) - 1}, got {positive}")
    limits = limits or Limits()

    def numbers(probs: np.ndarray, val: ArrayLike | None, column: int) -> Numbers:
        point = operating_point(val_labels, val, labels, probs, positive, limits.specificity)
        worst = worst_of(labels, probs.argmax(1), shift, groups, corruptions, column)
        return numbers_of(labels, probs, point, worst, clusters, n_boot, seed)

    judged = numbers(after, val_after, 1)
    source = None if before is None else numbers(before, val_before, 2)
    harm = gain = 0.0
    change = None
    if before is not None:
        answers = before.argmax(1), after.argmax(1)
        harm, gain = harm_rate(labels, *answers), gain_rate(labels, *answers)
        change = is_real(*answers, labels, clusters=clusters, n_boot=max(n_boot, 2000), seed=seed)
    variety = predicted_class_entropy(labels, len(names))
    checks = check_rules(judged, None if before is None else harm, variety, names, positive, limits)
    about = (model, adaptation, shift, len(labels), names)
    return ReportCard(*about, judged, source, harm, gain, change, limits, checks)


def _class_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = tuple(names) if names is not None else tuple(f"class {k}" for k in range(count))
    if len(names) != count:
        raise SeminarError(f"{len(names)} class names for probabilities of {count} classes")
    return names


def _short(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2f}"


def _lines(card: ReportCard, recalls: bool) -> dict[str, Callable[[Numbers], str]]:
    """Name of each line of the table -> what it says of a model's numbers."""
    at = card.limits.specificity
    of_class = {
        f"recall of {name}": (lambda n, k=k: _short(n.recall[k])) for k, name in enumerate(card.class_names)
    }
    return {
        "AUROC [95%]": lambda n: show(n.auroc) if isinstance(n.auroc, Interval) else "undefined",
        "balanced accuracy [95%]": lambda n: show(n.balanced_accuracy),
        **(of_class if recalls else {}),
        "ECE, 15 equal-width bins": lambda n: _short(n.ece),
        "ECE, 15 equal-mass bins": lambda n: _short(n.adaptive_ece),
        f"sensitivity (specificity {at:g} on validation)": lambda n: _short(n.operating.sensitivity),
        "specificity reached here": lambda n: _short(n.operating.specificity),
        "worst group or corruption": lambda n: (
            _short(n.worst[1]) + (f" ({n.worst[0]})" if n.worst[0] is not None else "")
        ),
        "predicted-class entropy": lambda n: _short(n.entropy),
    }


def stream_answers(
    build: Callable[[nn.Module], Callable], model: nn.Module, x: Tensor, batch_size: int = 64, seed: int = 0
) -> np.ndarray:
    """Probabilities (N, K), in the order of x (N, C, H, W), of a fresh method fed x in random order."""
    result = run_stream(build(model), stream(x, np.arange(len(x)), batch_size, "iid", seed))
    probs = np.empty_like(result.probs)
    probs[result.labels] = result.probs  # the stream's labels are the images' numbers
    return probs


def report_card_of(
    build: Callable[[nn.Module], Callable],
    network: nn.Module,
    test: tuple[Tensor, ArrayLike],
    validation: tuple[Tensor, ArrayLike],
    *,
    others: Mapping[str, tuple[Tensor, ArrayLike]] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **about: Any,
) -> ReportCard:
    """Run a method on streams and make its card: shifted test images, clean validation images, other shifts.

    Args: build: makes the adapter from the network (`Source`, `Tent`, ...); test, validation: images (N, C, H, W)
    and labels; others: name -> images and labels under other corruptions. A fresh method runs on each.
    about: passed on to `report_card` (model, adaptation, shift, class_names, groups, clusters, limits ...).
    """
    adapted = build is not Source

    def answers(x: Tensor) -> list[np.ndarray]:  # after, and before where that is something else
        return [
            stream_answers(one, network, x, batch_size, seed) for one in [build, *([Source] if adapted else [])]
        ]

    shifted, clean = answers(test[0]), answers(validation[0])
    corruptions = {
        name: (as_numpy(y), *(probs.argmax(1) for probs in answers(x))) for name, (x, y) in (others or {}).items()
    }
    pairs = {"val_after": clean[0], "val_before": clean[1] if adapted else None, "corruptions": corruptions}
    before = shifted[1] if adapted else None
    return report_card(test[1], shifted[0], before, val_labels=validation[1], seed=seed, **pairs, **about)
