"""Mask criteria from initial and final weights, by hand."""

from __future__ import annotations

import pytest
import torch

from engine.scores import criterion
from engine.scores.tickets import ticket_scores

INITIAL = torch.tensor([[1.0, -4.0], [2.0, -0.5]])
FINAL = torch.tensor([[3.0, -1.0], [-2.5, -2.0]])


def scored(name: str, normalize: str = "none") -> list[list[float]]:
    found: list[list[float]] = ticket_scores(
        INITIAL, FINAL, criterion(name), normalize=normalize
    ).tolist()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("large_final", [[3.0, 1.0], [2.5, 2.0]]),
        ("small_final", [[-3.0, -1.0], [-2.5, -2.0]]),
        ("large_init", [[1.0, 4.0], [2.0, 0.5]]),
        ("small_init", [[-1.0, -4.0], [-2.0, -0.5]]),
        ("large_init_large_final", [[1.0, 1.0], [2.0, 0.5]]),
        ("small_init_small_final", [[-3.0, -4.0], [-2.5, -2.0]]),
        ("magnitude_increase", [[2.0, -3.0], [0.5, 1.5]]),
        ("init_movement", [[2.0, 3.0], [4.5, 1.5]]),
        ("large_final_same_sign", [[3.0, 1.0], [0.0, 2.0]]),
    ],
)
def test_scores(name: str, expected: list[list[float]]) -> None:
    assert scored(name) == expected


def test_negative_scores_are_divided_by_their_size() -> None:
    # the largest |score| is 3; those of magnitude_increase sum to 7, so their mean is 1.75
    assert scored("small_final", "max") == [[-1.0, -1 / 3], [-2.5 / 3, -2 / 3]]
    assert scored("magnitude_increase", "mean") == [
        [2 / 1.75, -3 / 1.75],
        [0.5 / 1.75, 1.5 / 1.75],
    ]
