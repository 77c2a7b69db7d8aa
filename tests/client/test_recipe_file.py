from __future__ import annotations

from pathlib import Path

import pytest
from secateur.errors import SecateurError
from secateur.recipe_file import Mistake, RecipeInvalid, read_recipe

GOOD = """\
version: 1
# a comment
stages:
  - stage: prune
    allocation: {amount: 0.5}
    schedule:
      kind: iterative
      rounds: 3
  - stage: finetune
    epochs: 2
    optimizer: {lr: 1e-3}
"""


def mistakes(tmp_path: Path, text: str) -> list[Mistake]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeInvalid) as caught:
        read_recipe(path)
    assert str(path) in caught.value.title
    assert all(str(mistake) in str(caught.value) for mistake in caught.value.mistakes)
    return caught.value.mistakes


def test_a_good_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    file = read_recipe(path)
    assert file.text == GOOD
    assert file.recipe.stages[1].optimizer.lr == 0.001  # type: ignore[union-attr]
    later = file.mistakes({"stages.0.schedule.finetune": "x", "stages.1": "y", "inputs": "z"})
    assert [mistake.line for mistake in later.mistakes] == [6, 9, 1]


@pytest.mark.parametrize(
    ("old", "new", "field", "line"),
    [
        ("amount: 0.5", "amount: 1.5", "stages.0.allocation.amount", 5),
        ("rounds: 3", "rounds: 1", "stages.0.schedule.rounds", 8),
        ("rounds: 3", "round: 3", "stages.0.schedule.round", 8),
        ("kind: iterative", "kind: sometimes", "stages.0.schedule", 6),
        ("  - stage: finetune", "  - stage: polish", "stages.1", 9),
        ("    allocation: {amount: 0.5}\n", "", "stages.0.allocation", 4),
        ("version: 1", "version: 2", "version", 1),
        ("amount: 0.5", "amount: 0.5, count: 3", "stages.0.allocation", 5),
        ("lr: 1e-3", "lr: 1e-3, lr: 1e-2", "stages.1.optimizer.lr", 11),
    ],
)
def test_every_mistake_has_its_field_and_line(
    tmp_path: Path, old: str, new: str, field: str, line: int
) -> None:
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new))
    assert [(mistake.field, mistake.line) for mistake in found] == [(field, line)]


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, GOOD.replace("0.5", "-1").replace("epochs: 2", "epochs: 0"))
    assert [mistake.line for mistake in found] == [5, 10]


def test_nothing_pruned(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, "stages: [{stage: finetune}]")
    assert "nothing would become smaller" in found.message


@pytest.mark.parametrize("text", ["", "- a", "just words", "stages: [", "a: b: c", "\tx: 1"])
def test_what_is_no_mapping(tmp_path: Path, text: str) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.line >= 1


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="No such file"):
        read_recipe(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SecateurError, match="UTF-8"):
        read_recipe(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_text("# " + "x" * (1 << 20))
    with pytest.raises(SecateurError, match="too large"):
        read_recipe(tmp_path / "huge.yaml")
