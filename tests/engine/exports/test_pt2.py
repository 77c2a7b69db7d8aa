from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.exports import pt2_file
from engine.exports.request import ExportFailed

DEFAULTS = {"dynamic_batch": None}


@pytest.mark.exhaustive  # loading torch.export in fresh processes takes seconds for each
@pytest.mark.parametrize("name", ["cnn", "lstm", "transformer", "nested"])
def test_every_kind_of_model_runs(make, name):
    made = pt2_file.write(make(name, **DEFAULTS))
    assert 0 <= made.relative_error < 1e-5
    if name == "transformer":
        # torch's converter takes samples times heads for a constant
        assert (made.any_batch, made.batch_sizes) == (False, (2,))
        assert "the number of samples is fixed" in made.notes[0]
    else:
        assert made.any_batch
        assert len(made.batch_sizes) == 2


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x)}


@pytest.mark.exhaustive
def test_structure_and_names_stay_where_all_are_tensors(make):
    request = make(Named(), [torch.ones(1, 4)], **DEFAULTS)
    made = pt2_file.write(request)
    assert (made.any_batch, made.batch_sizes) == (True, (1, 3))
    program = torch.export.load(made.path)
    assert set(program.state_dict) == {"linear.weight", "linear.bias"}
    inputs = torch.randn(6, 4)
    found, expected = program.module()(inputs), torch.jit.load(request.model)(inputs)
    assert torch.equal(found["logits"], expected["logits"])


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() < 100):
            x = x * 2
        return x


def test_what_the_converter_does_not_know_is_a_reason(make):
    with pytest.raises(ExportFailed, match="torch cannot convert it"):
        pt2_file.write(make(Deciding(), [torch.ones(2, 3)], **DEFAULTS))


@pytest.mark.exhaustive
def test_a_number_of_samples_that_must_be_open_and_is_not_fails(make):
    with pytest.raises(ExportFailed, match="takes no other number of samples"):
        pt2_file.write(make("transformer", dynamic_batch=True))
