"""The entries of a benchmark's grid: a name or a table in, a checked plain dict with its defaults filled in out.

Everything unknown is refused with the names that are known; see bench_spec.py for what a spec looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..adaptation.registry import METHODS, settings_of
from ..data import SPLITS, available, options_of
from ..runtime import SeminarError, unknown_name
from .bench_cells import EPISODIC, NEVER
from .schedules import SCHEDULES
from .selection import RULES
from .shifts import SETS, SEVERITIES, SHIFTS, shift_conditions
from .streams import ORDERS, order_of

Entry = Mapping[str, Any]


def method_entry(entry: Any) -> dict[str, Any]:
    """A method's name, or a table of its name, its settings, and how they are chosen."""
    entry = {"name": entry} if isinstance(entry, str) else dict(_table(entry, "methods"))
    name = entry.pop("name", None)
    rule = str(entry.pop("selection", "default")).replace(" ", "_").replace("-", "_")
    candidates, held_out = entry.pop("candidates", None), entry.pop("held_out", None)
    if not isinstance(name, str) or name not in METHODS:
        raise unknown_name("method", name, METHODS)
    if rule not in RULES:
        raise unknown_name("selection rule", rule, RULES)
    candidates = None if candidates is None else [dict(_table(c, "candidates")) for c in as_list(candidates)]
    for settings in [entry, *(candidates or [])]:
        check_keys(settings, settings_of(name), f"setting of {name}")
    usual = settings_of(name)
    method = {"name": name, "settings": {k: v for k, v in entry.items() if v != usual[k]}}
    if rule == "default":
        if candidates or held_out:
            raise SeminarError(f"candidates and held_out of {name!r} need a selection rule that looks at them")
        return method
    if not candidates:
        raise SeminarError(f"the selection {rule!r} of {name!r} needs candidates = [{{...}}, ...] to choose from")
    if (rule == "held_out_shift") != (held_out is not None):
        raise SeminarError(
            f"held_out = [shift, severity] belongs to the rule held_out_shift, {name!r} has {rule!r}"
        )
    if held_out is not None:
        held_out = list(_condition(held_out, "held_out"))
    return method | {"selection": rule, "candidates": candidates, "held_out": held_out}


def data_entry(entry: Any) -> dict[str, Any]:
    """A data set by name, or a table of its name, split and options; the defaults are filled in."""
    entry = {"name": entry} if isinstance(entry, str) else dict(_table(entry, "data"))
    name, split = entry.pop("name", None), entry.pop("split", "test")
    if not isinstance(name, str) or name not in available():
        raise unknown_name("data set", name, available())
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    usual = {key: value for key, value in options_of(name).items() if key != "n"}
    check_keys(entry, usual, f"option of the data set {name!r} (their number: images, at the top)")
    return {"name": name, "split": split, "options": usual | entry}


def stream_entry(entry: Any) -> dict[str, Any]:
    """An order by name, or a table of order or schedule with options."""
    if isinstance(entry, str):
        entry = {"schedule" if entry in SCHEDULES else "order": entry}
    entry = dict(_table(entry, "streams"))
    order, schedule = entry.pop("order", "iid"), entry.pop("schedule", None)
    if order not in ORDERS:
        raise unknown_name("stream order", order, [*ORDERS, *SCHEDULES])
    if schedule is None:
        order_of(np.arange(100) % 2, order, 0, **entry)  # raises for an option that is unknown or makes no sense
        return {"order": order, "options": entry}
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    rounds = as_count(entry.pop("rounds", 3), "rounds", 1)
    whole, conditions = bool(entry.pop("whole_set", False)), entry.pop("conditions", "ramp")
    if isinstance(conditions, str) and conditions != "ramp" and conditions not in SETS:
        raise unknown_name("set of shifts", conditions, ["ramp", *SETS])
    if not isinstance(conditions, str):
        conditions = [list(_condition(pair, "conditions")) for pair in as_list(conditions)]
    order_of(np.arange(100) % 2, order, 0, **entry)
    return {
        "schedule": schedule,
        "rounds": rounds if schedule == "recurring" else 1,
        "whole_set": whole,
        "conditions": conditions,
        "order": order,
        "options": entry,
    }


def reset_entry(value: Any) -> int:
    """Before every how many batches a method goes back to its start; 0 for never."""
    named = {"never": NEVER, "episodic": EPISODIC}
    if isinstance(value, str) and value in named:
        return named[value]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SeminarError(f"resets holds 'never', 'episodic' or a number of batches from 1, got {value!r}")
    return value


def shift_entries(names: Sequence[Any], severities: Sequence[Any]) -> list[tuple[str, int, bool]]:
    """(shift, severity, does it come from a set?) of each entry; a set brings severities, "none" has 0."""
    for severity in severities:
        if isinstance(severity, bool) or severity not in SEVERITIES:
            raise SeminarError(f"severities lie in {SEVERITIES}, got {severity!r}")
    found: list[tuple[str, int, bool]] = []
    for name in names:
        if name == "none":
            found.append(("none", 0, False))
        elif name in SETS:
            found += [(s, k, True) for s, k in shift_conditions(name) if not severities or k in severities]
        elif name in SHIFTS:
            if not severities:
                raise SeminarError(f"the shift {name!r} needs severities = [...] out of {SEVERITIES}")
            found += [(name, severity, False) for severity in severities]
        else:
            raise unknown_name("shift", name, ["none", *SHIFTS, *SETS])
    if severities and all(shift == "none" for shift, _, _ in found):
        raise SeminarError(
            f"severities {list(severities)} without a shift that could have them: shifts is {names}"
        )
    return found


def _condition(pair: Any, key: str) -> tuple[str, int]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise SeminarError(f"{key} holds [shift, severity] pairs, got {pair!r}")
    shift, severity = pair
    if shift != "none" and shift not in SHIFTS:
        raise unknown_name("shift", shift, ["none", *SHIFTS])
    if isinstance(severity, bool) or severity not in ((0,) if shift == "none" else SEVERITIES):
        raise SeminarError(
            f"{key}: the severity of {shift!r} is {0 if shift == 'none' else SEVERITIES}, got {severity!r}"
        )
    return shift, severity


def check_keys(table: Entry, known: Sequence[str] | Mapping[str, Any], kind: str) -> None:
    """Raise SeminarError, with the nearest known names, for a key of `table` that is not `known`."""
    for key in table:
        if key not in known:
            raise unknown_name(kind, key, known)


def _table(value: Any, key: str) -> Entry:
    if not isinstance(value, dict):
        raise SeminarError(f"{key} holds names or tables {{name = ..., ...}}, got {value!r}")
    return value


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def as_count(value: Any, key: str, least: int) -> int:
    """An integer of at least `least`, or a SeminarError that names the key."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SeminarError(f"{key} takes integers of at least {least}, got {value!r}")
    return value
