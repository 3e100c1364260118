"""How each shipped checkpoint is made: `seminar pretrain NAME` runs one recipe from images to card.

A name is `MODEL-DATA-sSEED`, for example `resnet_small-phantoms-s0`. Training resumes after a kill from
`runs/pretrain/NAME.pt`; the weights and their card go to `data/checkpoints/`, a row to the results store.
One module a family: `supervised` first; each holds a kind of `Recipe` and the recipes of that kind.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..runtime import SeminarError, profile, unknown_name
from .base import SEEDS, Recipe, run_recipe
from .clip import CLIP_RECIPES
from .dino import DINO_RECIPES
from .mae import MAE_RECIPES
from .masks import MASK_RECIPES
from .sam import SAM_RECIPES
from .supervised import SUPERVISED
from .test_time import TEST_TIME

__all__ = ["RECIPES", "Recipe", "list_recipes", "parse_name", "pretrain"]

RECIPES: dict[str, Recipe] = {
    **SUPERVISED,
    **CLIP_RECIPES,
    **DINO_RECIPES,
    **MAE_RECIPES,
    **SAM_RECIPES,
    **MASK_RECIPES,
    **TEST_TIME,
}


def list_recipes() -> list[str]:
    """The names `seminar pretrain` takes (any seed works: -s0, -s1, ...)."""
    return [f"{family}-s{SEEDS[0]}" for family in RECIPES]


def parse_name(name: str) -> tuple[Recipe, int]:
    """`resnet_small-phantoms-s1` -> its recipe, with the seed in its settings. Raises SeminarError otherwise."""
    match = re.fullmatch(r"(.+)-s(\d+)", name)
    if not match or match[1] not in RECIPES:
        raise unknown_name("recipe", name, list_recipes())
    recipe, seed = RECIPES[match[1]], int(match[2])
    return replace(recipe, config=replace(recipe.config, seed=seed)), seed


def pretrain(name: str, folder: Path | None = None, progress: bool = True) -> dict[str, Any]:
    """Run a recipe: train (or go on), evaluate once on the test split, write weights, card and row.

    Args: name: `MODEL-DATA-sSEED`; folder: where weights and card go (default `data/checkpoints`; needed in
    the smoke profile, which would spoil them). Returns the card. Raises SeminarError for an unknown name.
    """
    recipe, _ = parse_name(name)
    if profile() == "smoke":
        if folder is None:
            raise SeminarError(
                "the smoke profile trains for one epoch only: give a folder, or use the cpu profile"
            )
        recipe = recipe.smoke_sized()
    return run_recipe(name, recipe, folder, progress)
