"""From General to Clinical: the package behind the course's notebooks.

The rooms follow the three questions of the seminar: `models` and `pretraining` (what to adapt),
`adaptation` (how to adapt), `evaluation` (how to judge it for the clinic). Importing this module
loads nothing heavy: each name below is fetched from its room when it is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "load": "data",
    "ImageSet": "data.dataset",
    "create_model": "models",
    "load_checkpoint": "checkpoints",
    "load_pretrained": "checkpoints",
    "pretrained_transform": "checkpoints",
    "SeminarError": "runtime",
    "by_profile": "runtime",
    "pick_device": "runtime",
    "profile": "runtime",
    "seed_everything": "runtime",
    "set_threads": "runtime",
    "ResultsStore": "evaluation.results",
    "exercise": "teaching.exercises",
    "hint": "teaching.exercises",
    "solution": "teaching.exercises",
    "progress": "teaching.exercises",
    "quiz": "teaching.quiz",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Import the room that holds `name` on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seminar_utils' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
