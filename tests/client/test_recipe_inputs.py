"""The forms of `inputs`: what they become, and where their mistakes are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from secateur.recipe import Recipe
from secateur.recipe_file import RecipeInvalid, read_recipe
from secateur.recipe_inputs import MAX_DEPTH, MAX_ENTRIES, DictInput, InputSpec, TupleInput

TENSOR = {"shape": [1, 4]}


def recipe(*inputs: Any) -> Recipe:
    stages = [{"stage": "prune", "allocation": {"amount": 0.5}}]
    return Recipe.model_validate({"stages": stages, "inputs": list(inputs)})


def first(entry: Any) -> Any:
    """The entry after reading, as it is written into a report."""
    read = recipe(entry)
    dumped = read.model_dump(mode="json")
    assert Recipe.model_validate(dumped) == read
    assert Recipe.model_validate_json(read.model_dump_json()) == read
    return dumped["inputs"][0]


def nested(depth: int) -> Any:
    entry: Any = TENSOR
    for _ in range(depth):
        entry = {"list": [entry]}
    return entry


@pytest.mark.parametrize("value", [3, -(2**63), 0.5, True, False, "text", "", None])
def test_a_value_stays_what_it_is(value: Any) -> None:
    kept = first({"value": value})
    assert kept == {"value": value}
    assert type(kept["value"]) is type(value)


def test_groups_keep_their_kind_and_order() -> None:
    entry = {"dict": {"b": {"tuple": [{"value": 1}, {"list": []}]}, "a": {"value": None}}}
    assert first(entry) == entry
    assert list(first(entry)["dict"]) == ["b", "a"]
    assert first({"dict": {3: {"value": 1}}}) == {"dict": {"3": {"value": 1}}}


def test_they_are_built_in_python_too() -> None:
    spec = InputSpec(shape=[1, 4])
    built = Recipe(
        inputs=[DictInput(dict={"a": TupleInput(tuple=[spec])})], stages=recipe(TENSOR).stages
    )
    assert built == recipe({"dict": {"a": {"tuple": [TENSOR]}}})


@pytest.mark.parametrize(
    ("entry", "field", "words"),
    [
        (3, "", "a value `{value: 3}`"),
        ([TENSOR], "", "`{list: [...]}`"),
        (None, "", "a tensor `{shape:"),
        ({}, "shape", "Field required"),
        ({"list": [TENSOR, 3]}, "list.1", "a value `{value: 3}`"),
        ({"list": TENSOR}, "list", "valid list"),
        ({"tuple": {"a": TENSOR}}, "tuple", "valid list"),
        ({"dict": [TENSOR]}, "dict", "valid dictionary"),
        ({"dict": {"": TENSOR}}, "dict.", "at least 1 character"),
        ({"dict": {"x" * 201: TENSOR}}, "dict." + "x" * 201, "at most 200 characters"),
        ({"dict": {"a": {"shape": [0]}}}, "dict.a.shape.0", "greater than or equal to 1"),
        ({"tuple": [{"shape": [1], "high": 3}]}, "tuple.0", "`high` bounds integer inputs"),
        ({"value": [1]}, "value", "a value is a number"),
        ({"value": {"a": 1}}, "value", "a value is a number"),
        ({"value": 2**63}, "value", "64 bits"),
        ({"value": float("inf")}, "value", "finite"),
        ({"value": float("nan")}, "value", "finite"),
        ({"value": "x" * 4097}, "value", "4096 characters"),
        ({"value": 1, "list": []}, "value", "Extra inputs"),
        ({"value": 1, "shape": [1]}, "shape", "Extra inputs"),
        ({"dict": {}, "dtype": "int64"}, "dtype", "Extra inputs"),
    ],
)
def test_a_mistake_is_found_at_its_place(entry: Any, field: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        recipe(TENSOR, entry)
    (fault,) = caught.value.errors()
    tags = {"InputSpec", "ValueInput", "ListInput", "TupleInput", "DictInput", "[key]"}
    path = [str(part) for part in fault["loc"] if part not in tags]
    assert path == ["inputs", "1", *(field.split(".") if field else [])]
    assert words in fault["msg"]


def test_depth_and_number_are_bounded() -> None:
    assert recipe(nested(MAX_DEPTH), {"list": [TENSOR] * (MAX_ENTRIES - 1)}).inputs
    deeper = "`inputs.0" + ".list.0" * MAX_DEPTH + "` is nested deeper"
    for depth in (MAX_DEPTH + 1, 20_000):
        with pytest.raises(ValidationError, match=deeper):
            recipe(nested(depth))
    with pytest.raises(ValidationError, match="257 tensors and values are given; at most 256"):
        recipe(TENSOR, {"dict": {str(i): TENSOR for i in range(MAX_ENTRIES)}})
    with pytest.raises(ValidationError, match="at most 32"):
        recipe(*[TENSOR] * 33)


def test_a_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "stages: [{stage: prune, allocation: {amount: 0.5}}]\n"
        "inputs:\n"
        "  - {shape: [1, 4]}\n"
        "  - dict:\n"
        "      image: {shape: [1, 3]}\n"
        "      mask:\n"
        "        list:\n"
        "          - {shape: [-1]}\n"
        "          - 7\n"
    )
    with pytest.raises(RecipeInvalid) as caught:
        read_recipe(path)
    assert [(item.field, item.line) for item in caught.value.mistakes] == [
        ("inputs.1.dict.mask.list.0.shape.0", 8),
        ("inputs.1.dict.mask.list.1", 9),
    ]
