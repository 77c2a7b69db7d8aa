from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.exports import triton
from engine.exports.request import ExportFailed
from tests.engine.exports.triton_messages import parsed

OPTIONS = {"name": "compact", "max_batch_size": 8}
FLOAT, INT = "TYPE_FP32", "TYPE_INT64"
CONFIGURED = {
    "images": (
        8,
        [("images__0", FLOAT, [3, 6, 6])],
        [("logits__0", FLOAT, [4]), ("class__1", INT, [1])],
    ),
    # The state has the batch in the middle: Triton may not join requests.
    "recurrent": (
        0,
        [("x__0", FLOAT, [-1, 4, 5])],
        [("OUTPUT__0", FLOAT, [-1, 3]), ("OUTPUT__1", FLOAT, [4, -1, 6])],
    ),
    "encoder": (
        8,
        [("ids__0", INT, [5]), ("padding__1", "TYPE_BOOL", [5])],
        [("OUTPUT__0", FLOAT, [3])],
    ),
    "pyramid": (
        8,
        [("levels_0__0", FLOAT, [4]), ("levels_1__1", FLOAT, [4])],
        [("OUTPUT__0", FLOAT, [2]), ("OUTPUT__1", FLOAT, [3])],
    ),
    "detector": (
        8,
        [("batch_left__0", FLOAT, [4]), ("batch_right__1", FLOAT, [4])],
        [
            ("output_0_boxes__0", FLOAT, [4]),
            ("output_0_scores_all__1", FLOAT, [2]),
            ("output_1_0__2", FLOAT, [6]),
        ],
    ),
}


def config_of(made) -> Path:
    return made.path / "compact" / "config.pbtxt"


def described(tensors) -> list[tuple[str, str, list[int]]]:
    name_of = type(tensors[0]).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return [(one.name, name_of[one.data_type].name, list(one.dims)) for one in tensors]


@pytest.mark.parametrize("name", CONFIGURED)
def test_names_types_and_sizes_are_those_of_the_model(asked, checked_here, name):
    checked_here(triton)
    made = triton.write(asked(name, **OPTIONS))
    config = parsed(config_of(made).read_text())
    batch, inputs, outputs = CONFIGURED[name]
    assert (config.name, config.platform) == ("compact", "pytorch_libtorch")
    assert config.max_batch_size == batch
    assert config.HasField("dynamic_batching") == (batch > 0)
    assert described(config.input) == inputs
    assert described(config.output) == outputs
    assert made.relative_error == 0
    assert made.batch_sizes == (2, 3)
    assert made.any_batch
    reshaped = [one.name for one in config.output if one.HasField("reshape")]
    assert reshaped == (["class__1"] if name == "images" else [])


def test_a_fresh_process_serves_it(asked):
    request = asked("detector", **OPTIONS)
    made = triton.write(request)
    assert made.relative_error == 0
    files = [file for file in request.folder.rglob("*") if file.is_file()]
    assert sorted(file.relative_to(made.path).as_posix() for file in files) == [
        "compact/1/model.pt",
        "compact/config.pbtxt",
    ]
    assert "the model is wrapped" in made.notes[0]
    assert made.notes[1:] == ("results that are None with the example are left out",)


def test_a_model_of_tensors_is_the_file_itself(asked, checked_here):
    checked_here(triton)
    request = asked("encoder", **OPTIONS)
    made = triton.write(request)
    assert (made.path / "compact/1/model.pt").read_bytes() == request.model.read_bytes()
    assert made.notes == ()


def test_what_is_no_tensor_is_fixed_and_said(asked, checked_here):
    checked_here(triton)
    made = triton.write(asked("pyramid", **OPTIONS))
    assert made.notes[1:] == ("`scale` is always 0.5 in it", "`kind` is always 'scaled' in it")
    served = torch.jit.load(made.path / "compact/1/model.pt")
    left, right = torch.ones(2, 4), torch.ones(2, 4)
    original = torch.jit.load(made.path.parents[1] / "compact.pt")
    expected = original([left, right], 0.5, "scaled")
    assert all(map(torch.equal, served(left, right), expected))


def test_no_more_samples_are_sent_than_may_be(asked, checked_here):
    checked_here(triton)
    made = triton.write(asked("encoder", name="compact", max_batch_size=1))
    assert parsed(config_of(made).read_text()).max_batch_size == 1
    assert made.batch_sizes == (1,)


class Varying(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x] * (1 if bool(x.sum() > 0) else 2)


def test_a_list_of_another_length_raises_when_served(asked, checked_here):
    checked_here(triton)
    made = triton.write(asked(Varying(), (torch.ones(2, 3),), **OPTIONS))
    served = torch.jit.load(made.path / "compact/1/model.pt")
    with pytest.raises(torch.jit.Error, match="the result has another length than with the"):
        served(-torch.ones(2, 3))


class Counts(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, x.size(0)


class Alone(nn.Module):
    def forward(self, count: int) -> Tensor:
        return torch.ones(count)


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (nn.Linear(2, 2).bfloat16(), (torch.ones(2, 2).bfloat16(),), "passes no bfloat16 tensors"),
        (Counts(), (torch.ones(2, 2),), r"the result\[1\] is 2, no tensor"),
        (Alone(), (3,), "the model takes no tensor"),
    ],
)
def test_what_the_backend_cannot_pass_is_a_reason(asked, checked_here, model, inputs, reason):
    checked_here(triton)
    with pytest.raises(ExportFailed, match=reason):
        triton.write(asked(model, inputs, **OPTIONS))


WRONG = {
    ("images__0", "images"): "'images' does not end in __ and a position",
    ("TYPE_INT64", "TYPE_INT32"): "class__1 is torch.int64, not TYPE_INT32",
    ("TYPE_INT64", "TYPE_BF16"): "'TYPE_BF16' is no value of this field",
    ("dims: [ 4 ]", "dims: [ 5 ]"): "logits__0 has sizes",
    ("logits__0", "logits__7"): "list index out of range",
    ("max_batch_size: 8", "max_batch_size: 1"): "a batch of 2 is above 1",
    ("max_batch_size", "batch_limit"): "no field 'batch_limit' here",
    ("dims: [ 4 ]", "dims: [ 4"): r"',' expected, '}' found",
    ('name: "compact"', 'name: "other"'): "the configuration is of 'other'",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change[1])
def test_a_configuration_that_does_not_fit_is_found(asked, checked_here, change, tmp_path):
    checked_here(triton)
    request = asked("images", **OPTIONS)
    made = triton.write(request)
    config = config_of(made)
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    calls = tmp_path / "calls.pt"
    torch.save([list(request.inputs)], calls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(made.path), str(calls), str(tmp_path / "a.pt")])
        with pytest.raises((ValueError, TypeError, IndexError), match=WRONG[change]):
            runpy.run_path(str(triton._CHECK), run_name="__main__")
