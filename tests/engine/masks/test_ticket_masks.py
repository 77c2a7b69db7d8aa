"""What is masked stays masked under scores that are negative."""

from __future__ import annotations

import torch
from secateur.recipe import PruneStage
from torch import nn

from engine.masks import prune_elements
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted


def test_masked_weights_go_first_under_negative_scores(tmp_path):
    program = Program.load(save_scripted(nn.Linear(4, 1, bias=False), tmp_path / "m.pt"))
    with torch.no_grad():
        program.parameters()["weight"].copy_(torch.tensor([[9.0, 8.0, 7.0, 6.0]]))
    stage = PruneStage.model_validate(
        {
            "stage": "prune",
            "criterion": "small_final",
            "allocation": {"count": 2},
            "schedule": {"kind": "imp"},
        }
    )
    held = {"weight": torch.tensor([[True, True, True, False]])}
    masks, removed = prune_elements(
        program, held, stage, seed=0, score_of=lambda _, weight: -weight.detach().abs()
    )
    # The largest of those left goes; the masked one counts as the first of the two.
    assert removed == 1
    assert masks["weight"].tolist() == [[False, True, True, False]]
    assert program.parameters()["weight"].tolist() == [[0.0, 8.0, 7.0, 0.0]]
