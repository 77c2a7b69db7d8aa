"""Rewinding gives the stored weights on survivors, zero elsewhere, and checks what it is given."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.lottery.initial import InitialWeightsInvalid, load_initial
from engine.lottery.rewinding import rewind, snapshot
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted


@pytest.fixture
def small(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    return Program.load(save_scripted(model, tmp_path / "small.pt"))


def test_survivors_go_back_and_the_rest_is_zero(small):
    with torch.no_grad():
        small.parameters()["0.weight"].copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        small.parameters()["0.bias"].copy_(torch.tensor([5.0, 6.0]))
    initial = snapshot(small)
    trained = small.twin()
    with torch.no_grad():
        for tensor in trained.attributes().values():
            tensor.add_(7)
    masks = {"0.weight": torch.tensor([[True, False], [False, True]])}
    ticket = rewind(trained, initial, masks).attributes()
    assert ticket["0.weight"].tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert ticket["0.bias"].tolist() == [5.0, 6.0]
    assert ticket["1.running_mean"].tolist() == [0.0, 0.0]
    assert ticket["1.num_batches_tracked"].item() == 0
    assert trained.attributes()["0.weight"].tolist() == [[8.0, 9.0], [10.0, 11.0]]


def test_initial_weights_by_name(small, tmp_path):
    given = {name: tensor + 1 for name, tensor in snapshot(small).items()}
    del given["1.num_batches_tracked"]  # counts, and does not act on outputs
    save_file(given, tmp_path / "initial.safetensors")
    found = load_initial(tmp_path / "initial.safetensors", small)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)


def without_a_weight(given):
    del given["0.weight"]


def with_another(given):
    given["head.weight"] = torch.ones(1)


def of_another_shape(given):
    given["0.weight"] = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("change", "said", "where"),
    [
        (without_a_weight, "lack `0.weight`", "0.weight"),
        (with_another, "hold `head.weight`, which the model does not have", "head.weight"),
        (of_another_shape, r"`0.weight` is \[3, 2\] .* and \[2, 2\] in the model", "0.weight"),
    ],
)
def test_initial_weights_of_another_model(small, tmp_path, change, said, where):
    given = snapshot(small)
    change(given)
    save_file(given, tmp_path / "initial.safetensors")
    with pytest.raises(InitialWeightsInvalid, match=said) as caught:
        load_initial(tmp_path / "initial.safetensors", small)
    assert caught.value.where == where


def test_initial_weights_in_another_format(small, tmp_path):
    path = tmp_path / "initial.safetensors"
    path.write_bytes(b"not tensors at all")
    with pytest.raises(InitialWeightsInvalid, match="cannot be read"):
        load_initial(path, small)
