"""Movement in the training of a copy, worked out by hand.

`Two` has h = (u, v) x and z = F h with u = v = 1 and F the identity. On x = 1 with target 0:

    step 1   z = (1, 1), p_1 = 1/2, dL/dz = (-1/2, 1/2)
             g of (u, v) = F^T dL/dz = (-1/2, 1/2);  g of F = dL/dz h^T = [[-1/2, -1/2], [1/2, 1/2]]
    step 2   at rate 1: (u, v) = (1.5, 0.5), F = [[1.5, 0.5], [-0.5, 0.5]], z = (2.5, -0.5)
             p_1 = 1 / (1 + e^3) = 0.0474259, g of (u, v) = 0.0474259 (-1.5 - 0.5, -0.5 + 0.5)
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import CriterionDoesNotFit
from engine.scores import criterion, element_saliency
from tests.engine.scores.networks import evidence_of, linear, program_of, scores_of


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = linear([[1], [1]])
        self.fc2 = linear([[1, 0], [0, 1]])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


def evidence(**changes):
    return evidence_of([[1.0]], [0], **{"epochs": 2, "rate": 1.0} | changes)


def elements(program, seen):
    return element_saliency(program, criterion("movement"), seen)


def test_two_steps_accumulate():
    scores = scores_of("movement", Two(), evidence())
    # u: 1 x 0.5 + 1.5 x 0.0948518; v: -1 x 0.5 - 0.5 x 0
    np.testing.assert_allclose(scores, [0.6422777, -0.5], rtol=1e-6)
    np.testing.assert_allclose(scores_of("movement", Two(), evidence(epochs=1)), [0.5, -0.5])


def test_the_copy_is_thrown_away():
    program = program_of(Two())
    elements(program, evidence())
    assert torch.equal(program.parameters()["fc1.weight"], torch.ones(2, 1))


def test_masked_weights_stay_zero_in_the_copy():
    # Without v: h = (1, 0), z = (1, 0), p_1 = 0.2689414; then u = 1 + 0.2689414, and
    # F = [[1.2689414, 0], [-0.2689414, 1]]: z_1 - z_0 = -1.5378828 u = -1.9514830, p_1 =
    # 0.1243917 and g of u = -0.1243917 x 1.5378828.
    program = program_of(Two())
    with torch.no_grad():
        program.parameters()["fc1.weight"][1] = 0.0
    masks = {"fc1.weight": torch.tensor([[True], [False]])}
    scores = elements(program, evidence(masks=masks))["fc1.weight"]
    np.testing.assert_allclose(scores.numpy(), [[0.5116898], [0.0]], rtol=1e-5)


def test_what_training_accumulated_is_taken_as_it_is():
    given = {"fc1.weight": torch.tensor([[-3.0], [2.0]], dtype=torch.float64)}
    scores = scores_of("movement", Two(), evidence_of([[1.0]], movement=given))
    np.testing.assert_allclose(scores, [-3.0, 2.0])


def test_a_copy_that_diverges_names_the_rate():
    with pytest.raises(CriterionDoesNotFit, match="diverged: its loss became") as caught:
        elements(program_of(Two()), evidence_of([[1e20]], [1], epochs=3, rate=10.0))
    assert caught.value.where == "scoring.lr"
    assert "lower `scoring.lr` (it is 10)" in caught.value.hint
