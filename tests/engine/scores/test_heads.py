"""Attention heads are judged by the sum over their slices, as channels are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.scores import component_scores, criterion
from tests.engine.core.programs import scripted
from tests.engine.core.test_heads import LENGTH, WIDTH, Attention, Fused, Grouped
from tests.engine.scores.networks import evidence_of

UNREAD = {"gradient", "snip", "taylor", "hessian", "synflow"}
"""A head that the next layer does not read has no gradient and passes no flow."""
FAINT = {"wanda", "mean_activation", "geometric_median", "lamp", "l1_norm"}
"""A head of small weights."""


class Classifier(nn.Module):
    def __init__(self, attention: nn.Module, unread: int, faint: int) -> None:
        super().__init__()
        self.attention, self.fc = attention, nn.Linear(WIDTH, 3)
        with torch.no_grad():
            width = attention.width * (attention.heads // attention.shared)
            attention.out.weight[:, unread * width : (unread + 1) * width] = 0
            for layer in (attention.query, attention.key, attention.value):
                rows = layer.weight.shape[0] // attention.shared
                layer.weight[faint * rows : (faint + 1) * rows] *= 1e-3
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(x).mean(1))


@pytest.mark.parametrize("make", [Attention, Fused, Grouped])
def test_the_head_that_matters_least_has_the_lowest_score(make):
    attention = make()
    heads = attention.shared
    program = scripted(Classifier(attention, unread=1, faint=0))
    x = torch.rand(8, LENGTH, WIDTH)
    evidence = evidence_of(x, [0, 1, 2, 0, 1, 2, 0, 1], batch_size=4)
    coupling = couple(program, list(evidence.example), granularity="head")
    assert coupling.component_count == heads
    for name in UNREAD | FAINT:
        scores = component_scores(
            coupling,
            program.tensors(),
            criterion(name),
            aggregate="sum",
            normalize="none",
            seed=0,
            program=program,
            evidence=evidence,
        )
        assert np.isfinite(scores).all(), name
        assert scores.argmin() == (1 if name in UNREAD else 0), (name, scores)
        if name in UNREAD:
            assert scores[1] == 0, name
