"""What a growth of a ramp looks at, by hand, on `Chain` (see tests/engine/scores).

On x = (1, 2) with target 0 both logits are 5 and g w of fc1 is [[-4.5, 3], [0, 1], [0.5, 0]]. With
fc1[2, 0] = 3 the hidden layer is (1, 2, 3) and the logits are 5 and 7: p_1 = 0.8808 and
g w = 0.8808 [[-9, 6], [0, 2], [3, 0]].
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from engine.pipeline.growth import Growth
from engine.pipeline.setup import prepare
from engine.torchscript.modes import training_copy
from tests.engine.scores.networks import Chain


@pytest.fixture
def chain_job(make_job, tmp_path):
    def make(stage, **recipe):
        torch.jit.save(torch.jit.script(Chain().eval()), tmp_path / "chain.pt")
        samples = {
            "train/inputs/0": torch.tensor([[1.0, 2.0]] * 4),
            "train/targets/0": torch.zeros(4, dtype=torch.int64),
        }
        save_file(samples, tmp_path / "chain.safetensors")
        written = {"stages": [stage]} | recipe
        return make_job(tmp_path / "chain.pt", written, tmp_path / "chain.safetensors")

    return make


def three_of_six(criterion):
    return {
        "stage": "prune",
        "granularity": "element",
        "criterion": criterion,
        "allocation": {"count": 3},
        "exclude": ["fc2"],
        "schedule": {"kind": "agp", "rounds": 2, "finetune": {"epochs": 3}},
    }


@pytest.mark.parametrize(
    ("criterion", "before", "after"),
    [
        # the two zeros, and 0.5 at first or 2 later
        ("snip", [[1, 1], [0, 1], [0, 0]], [[1, 1], [0, 0], [1, 0]]),
        # of equal magnitudes the first goes
        ("l1_norm", [[1, 0], [0, 1], [1, 0]], [[1, 0], [0, 1], [1, 0]]),
    ],
)
def test_a_growth_judges_the_weights_as_they_are_then(chain_job, criterion, before, after):
    bench = prepare(chain_job(three_of_six(criterion)))
    growth = Growth(bench, bench.recipe.stages[0], 0, frozenset({"fc1.weight"}), None)
    student = training_copy(bench.original, batch_norm="train")
    assert growth(student, {}, 2)["fc1.weight"].int().tolist() == before
    with torch.no_grad():
        weight = student.parameters()["fc1.weight"]
        weight.copy_(torch.tensor([[3.0, -1.0], [0.0, 1.0], [3.0, 0.0]]))
    assert growth(student, {}, 2)["fc1.weight"].int().tolist() == after
