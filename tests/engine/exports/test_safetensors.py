from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.exports import safetensors_file
from engine.exports.request import ExportFailed


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.register_buffer("odd", torch.tensor([float("nan"), 1.0], dtype=torch.bfloat16))
        self.register_buffer("part", torch.arange(12.0).reshape(3, 4).T[1:])
        self.register_buffer("empty", torch.zeros(0, 3))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(ids)))


def test_every_tensor_under_its_name_and_tied_ones_once(make):
    request = make(Tied(), [torch.tensor([1, 2])])
    made = safetensors_file.write(request)

    state = torch.jit.load(request.model).state_dict()
    held = load_file(made.path)
    assert set(held) == set(state) - {"head.weight"}
    for name, tensor in held.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor.nan_to_num(5), state[name].nan_to_num(5)), name
    with safe_open(made.path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "head.weight": "embedding.weight"}
    assert made.relative_error == made.tolerance == 0
    assert "safetensors" in made.verified_by
    assert "`head.weight` is `embedding.weight`" in made.notes[0]
    assert [path.name for path in request.folder.iterdir()] == ["compact.safetensors"]


def test_another_bit_in_the_file_is_found(make, monkeypatch):
    write = safetensors_file.save_file

    def flipped(tensors, path, metadata):
        write(tensors | {"bias": tensors["bias"] + 1e-7}, path, metadata)

    monkeypatch.setattr(safetensors_file, "save_file", flipped)
    with pytest.raises(ExportFailed, match="read back otherwise, such as `bias`"):
        safetensors_file.write(make(nn.Linear(3, 2)))


def test_a_type_that_the_format_does_not_know_is_a_reason(make):
    model = nn.Linear(3, 2)
    model.register_buffer("turns", torch.ones(2, dtype=torch.complex128))
    with pytest.raises(ExportFailed, match="safetensors does not take the tensors"):
        safetensors_file.write(make(model))


def test_a_model_without_tensors_is_a_reason(make):
    with pytest.raises(ExportFailed, match="no parameters and no buffers"):
        safetensors_file.write(make(nn.ReLU()))
