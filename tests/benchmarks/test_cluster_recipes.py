"""The recipes of docs/scaling.md as the benchmark takes them from the page; none is run here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.cluster_recipes import PAGE, RECIPES, Recipe, adapted, code_block

BLOCKS = re.findall(r"(?:^ {4}.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_one_block_of_the_page(recipe: Recipe) -> None:
    assert [recipe.part in block for block in BLOCKS].count(True) == 1
    assert recipe.change[0] in code_block(recipe.part)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_nothing_of_a_cluster_is_left_in_what_runs_here(recipe: Recipe, tmp_path: Path) -> None:
    script = adapted(code_block(recipe.part), tmp_path, 4321)
    for left in ("/shared", "cifar10", "FIRST_HOST", "--nworkers 16", "8786", ".venv/bin/activate"):
        assert left not in script
    assert f"-o {tmp_path}/results" in script


def test_every_recipe_of_the_page_is_run() -> None:
    parts = [recipe.part for recipe in RECIPES.values()]
    for block in BLOCKS:
        if "--dask_scheduler" in block:
            assert any(part in block for part in parts)
