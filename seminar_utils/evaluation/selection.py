"""Who chose the settings, and what did they look at? Four rules, from honest to impossible.

* `default`: the paper's settings, nothing is looked at.
* `source_validation`: best on the source's own validation split; sees no shift.
* `held_out_shift`: best on a labelled shift that is NOT the one that is tested.
* `oracle`: best on the test images with their labels. No clinic can do it; it bounds what tuning could give, and
  every name and row that comes from it says "oracle".

A reported gain that only the oracle reaches is no gain: `selection_report` prints the distance to the default.
Source: Zhao et al., On pitfalls of test-time adaptation, 2023 (arXiv 2306.03536); arXiv 2407.14231 on how few
ways of selecting are reliable without target labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime import SeminarError, unknown_name

RULES = {
    "default": "the published settings, untouched",
    "source_validation": "best on the source's validation split",
    "held_out_shift": "best on a labelled shift other than the tested one",
    "oracle": "best on the test labels: impossible in a clinic, an upper bound",
}
RECORDED = ("selection", "selected_on", "candidates", "settings")  # the names under which a row holds a Selection
Settings = Mapping[str, Any]
Score = Callable[[Settings], float]


@dataclass(frozen=True)
class Selection:
    """The settings that a rule chose, and everything a row must say about it.

    score: the value that decided (NaN for `default`, which looks at nothing); scored_on: the data behind it.
    """

    rule: str
    settings: dict[str, Any]
    score: float
    scored_on: str
    candidates: int

    def recorded(self) -> dict[str, Any]:
        """What goes into the `params` of every row that was measured with these settings."""
        return dict(zip(RECORDED, (self.rule, self.scored_on, self.candidates, self.settings)))

    def label(self, method: str) -> str:
        """The method's name for tables and figures; the oracle never goes without its name."""
        return method if self.rule == "default" else f"{method} ({self.rule.replace('_', ' ')})"


def select(
    rule: str,
    candidates: Sequence[Settings],
    *,
    default: Settings | None = None,
    score: Score | None = None,
    scored_on: str = "",
    tested_on: str = "",
) -> Selection:
    """The settings that `rule` chooses among `candidates` (keyword arguments of a method).

    Args: default: the published settings (rule `default`); score: settings -> a metric, higher is better, on the
    data that the rule may look at; scored_on: the name of that data, e.g. "blur 3"; tested_on: the name of the
    test data. Equal scores: the earlier candidate; NaN scores never win.
    Raises SeminarError when the rule lacks what it needs, looks at the test data without being the oracle, or
    claims to be the oracle without looking at it.
    """
    if rule not in RULES:
        raise unknown_name("selection rule", rule, RULES)
    if rule == "default":
        if default is None:
            raise SeminarError("the rule 'default' needs the published settings: default={...}")
        return Selection(rule, dict(default), math.nan, "nothing", 1)
    _check_evidence(rule, candidates, score, scored_on, tested_on)
    scores = [float(score(settings)) for settings in candidates]
    if all(math.isnan(value) for value in scores):
        raise SeminarError(f"the rule {rule!r} can't choose: all {len(scores)} scores on {scored_on!r} are NaN")
    best = max(range(len(scores)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])
    return Selection(rule, dict(candidates[best]), scores[best], scored_on, len(scores))


def _check_evidence(rule: str, candidates: Sequence, score: Score | None, scored_on: str, tested_on: str) -> None:
    if len(candidates) == 0:
        raise SeminarError(f"the rule {rule!r} needs candidates to choose from, got none")
    if score is None or not scored_on:
        needs = {
            "source_validation": "the source's labelled validation split",
            "held_out_shift": "a labelled shift other than the tested one",
            "oracle": "the labels of the test images",
        }[rule]
        lacks = "a score" if score is None else "the name of the data (scored_on)"
        raise SeminarError(f"the rule {rule!r} chooses on {needs}, but {lacks} is missing")
    if rule == "held_out_shift" and not tested_on:
        raise SeminarError("the rule 'held_out_shift' needs tested_on, to see that it is another shift")
    if rule != "oracle" and scored_on == tested_on:
        raise SeminarError(f"the rule {rule!r} would look at the test data {tested_on!r}: that is the oracle")
    if rule == "oracle" and tested_on and scored_on != tested_on:
        raise SeminarError(f"the oracle looks at the test data {tested_on!r}, not at {scored_on!r}")


@dataclass(frozen=True)
class SelectionReport:
    """What each rule chose, and what it is worth on the test data.

    chosen: rule -> Selection; tested: rule -> the metric on the test data; gap: oracle - default there (at least
    0): what is to be won by tuning at the very most, and what a paper that tunes on test labels may have gained.
    """

    chosen: dict[str, Selection]
    tested: dict[str, float]
    gap: float

    def rows(self) -> list[dict[str, Any]]:
        """One dict per rule, as for a row of the store: `params` to record and the test `metrics`."""
        return [
            {
                "params": choice.recorded(),
                "metrics": {
                    "score": self.tested[rule],
                    "below_oracle": self.tested["oracle"] - self.tested[rule],
                },
            }
            for rule, choice in self.chosen.items()
        ]

    def __str__(self) -> str:
        lines = [
            f"{rule:18s} {self.tested[rule]:.3f} on the test data with {choice.settings}, {RULES[rule]}"
            for rule, choice in self.chosen.items()
        ]
        return "\n".join([*lines, f"distance between default and oracle: {self.gap:.3f}"])


def selection_report(
    candidates: Sequence[Settings], default: Settings, scores: Mapping[str, tuple[str, Score]]
) -> SelectionReport:
    """Let every rule choose that has its evidence, and score all choices on the test data.

    Args: scores: rule -> (name of the data, score on it); "oracle" is required, its data is the test data. The
    default is added to the candidates when it is not among them, so that no rule has to do worse than it on
    its own data. Raises SeminarError as `select` does.
    """
    for rule in scores:
        if rule not in RULES or rule == "default":
            raise unknown_name("selection rule with a score", rule, set(RULES) - {"default"})
    if "oracle" not in scores:
        raise SeminarError("a selection report measures against the test labels: give a score under 'oracle'")
    candidates = [default, *(settings for settings in candidates if dict(settings) != dict(default))]
    tested_on, on_test = scores["oracle"]
    chosen = {"default": select("default", candidates, default=default)}
    for rule in (rule for rule in RULES if rule in scores):
        named, score = scores[rule]
        chosen[rule] = select(rule, candidates, score=score, scored_on=named, tested_on=tested_on)
    tested = {rule: float(on_test(choice.settings)) for rule, choice in chosen.items() if rule != "oracle"}
    tested["oracle"] = chosen["oracle"].score
    return SelectionReport(chosen, tested, tested["oracle"] - tested["default"])
