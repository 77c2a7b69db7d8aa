"""docs/recipe.md shows every field of every recipe type, with its default, and valid examples."""

from __future__ import annotations

import re

import yaml
from secateur.recipe import Recipe

from docs import generate_recipe

TEXT = generate_recipe.PAGE.read_text(encoding="utf-8")


def test_tables_are_what_the_generator_writes() -> None:
    assert generate_recipe.filled(TEXT) == TEXT, "run `python -m docs.generate_recipe`"


def test_every_type_of_the_recipe_has_a_table_under_its_own_heading() -> None:
    shown = re.findall(r"## (\w+)\n(?:(?!## ).)*?<!-- fields: (\w+) -->", TEXT, flags=re.DOTALL)
    assert all(heading == name for heading, name in shown)
    assert {name for _, name in shown} == set(generate_recipe.definitions())


def test_words_are_only_for_fields_without_a_docstring() -> None:
    silent = {
        name
        for schema in generate_recipe.definitions().values()
        for name, field in schema["properties"].items()
        if "description" not in field
    }
    assert silent == set(generate_recipe.WORDS)


def test_examples_are_valid_and_the_full_one_sets_every_stage_kind() -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    recipes = [Recipe.model_validate(example) for example in examples]
    assert len(recipes) == TEXT.count("```yaml") > 12
    assert any(recipe.needs_training() and not recipe.needs_targets() for recipe in recipes)
    assert recipes[0].needs_dataset() is None
    assert [stage.stage for stage in recipes[1].stages] == ["prune", "finetune"]
    scans = [recipe for recipe in recipes if recipe.scans]
    assert [[stage.measure for stage in recipe.scans] for recipe in scans] == [["accuracy", "loss"]]
    kinds = {type(entry).__name__ for entry in recipes[2].inputs or []}
    assert kinds == {name for name in generate_recipe.definitions() if "Input" in name}
