"""`exports` of a recipe: names, or objects with options, each format once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from secateur import results
from secateur.errors import SecateurError
from secateur.recipe import Recipe
from secateur.recipe_exports import ExportFormat, OtherFormat, format_of, options_of
from secateur.recipe_file import RecipeFile, read_recipe
from secateur.resources import ArtifactKind

STAGES = [{"stage": "prune", "allocation": {"amount": 0.5}}]


def recipe(*exports: Any) -> Recipe:
    return Recipe.model_validate({"stages": STAGES, "exports": list(exports)})


def test_a_name_and_an_object_mean_the_same() -> None:
    assert Recipe.model_validate({"stages": STAGES}).exports == ["torchscript"]
    for name in get_args(ExportFormat):
        (named,), (spelt,) = recipe(name).exports, recipe({"format": name}).exports
        assert format_of(named) == format_of(spelt) == name
        assert options_of(named) == options_of(spelt)


@pytest.mark.parametrize(
    ("exports", "message"),
    [
        (["caffe"], "formats are `torchscript`, `safetensors`"),
        ([{"format": "caffe"}], "formats are `torchscript`, `safetensors`"),
        ([{}], "an export is the name of a format"),
        ([7], "an export is the name of a format"),
        ([["safetensors"]], "an export is the name of a format"),
        ([{"format": "safetensors", "opset": 17}], "Extra inputs are not permitted"),
        (["safetensors", {"format": "safetensors"}], r"`exports\.1` is `safetensors` again"),
    ],
)
def test_others_are_refused(exports: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(*exports)


def test_a_scan_writes_no_model() -> None:
    scan = {"stages": [{"stage": "score"}], "exports": ["safetensors"]}
    with pytest.raises(ValidationError, match="`exports` speaks of a compressed model"):
        Recipe.model_validate(scan)


def test_every_format_is_a_kind_of_artifact_with_a_file_name() -> None:
    for name in get_args(OtherFormat):
        assert name in get_args(ArtifactKind)
        assert results.NAMES[name].startswith("compact.")
        assert len(name) <= 16  # what the database takes


def recipe_file(folder: Path, exports: str = "") -> RecipeFile:
    path = folder / "recipe.yaml"
    path.write_text("stages:\n  - {stage: prune, allocation: {amount: 0.5}}\n" + exports)
    return read_recipe(path)


def test_the_command_line_adds_formats_to_those_of_the_recipe(tmp_path: Path) -> None:
    read = recipe_file(tmp_path, "exports: [{format: onnx, opset: 15}]\n")
    added = read.with_exports(["safetensors", "onnx", "safetensors"]).recipe
    assert [format_of(one) for one in added.exports] == ["onnx", "safetensors"]
    assert options_of(added.exports[0])["opset"] == 15
    assert added.stages == read.recipe.stages
    assert read.with_exports([]) is read


def test_the_command_line_knows_no_other_formats(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="--export: an export is the name of a format"):
        recipe_file(tmp_path).with_exports(["caffe"])
