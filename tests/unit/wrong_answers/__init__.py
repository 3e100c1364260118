"""Planted wrong answers, one module a lesson (`lesson_11_tent`): WRONG, and RIGHT ones written differently.

WRONG maps an exercise's id to {what is wrong: function}, at least three each; RIGHT an id to a function.
"""

import pkgutil
from importlib import import_module

WRONG, RIGHT = {}, {}
for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    _answers = import_module(f"{__name__}.{_module}")
    WRONG.update(_answers.WRONG)
    RIGHT.update(getattr(_answers, "RIGHT", {}))
