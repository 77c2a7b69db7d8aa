"""Shapes without values equal those of a real run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.tape import record, to_meta
from engine.torchscript.convolution_shapes import convolution_on_meta
from engine.torchscript.instructions import walk
from engine.torchscript.meta import _ACTIVATIONS, run_on_meta
from tests.engine.core.programs import scripted, traced

_PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Applied(nn.Module):
    """One function of its input."""

    def __init__(self, call) -> None:
        super().__init__()
        self.call = call
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x)


def steps(program, inputs):
    """What the tape holds of the convolutions, and the program's operators."""
    return [step for step in record(program, inputs).steps if "conv" in step.kind]


@given(
    dims=st.sampled_from([1, 2, 3]),
    transposed=st.booleans(),
    kernel=st.integers(1, 3),
    size=st.integers(5, 9),
    chosen=st.fixed_dictionaries(
        {
            "stride": st.integers(1, 3),
            "padding": st.integers(0, 2),
            "dilation": st.integers(1, 2),
            "groups": st.sampled_from([1, 2, 4]),
            "bias": st.booleans(),
        }
    ),
)
def test_convolutions(dims, transposed, kernel, size, chosen):
    options = dict(chosen)
    if transposed:
        options["output_padding"] = int(max(options["stride"], options["dilation"]) > 1)
    model = (_TRANSPOSED if transposed else _PLAIN)[dims](4, 8, kernel, **options).eval()
    inputs = (torch.randn(2, 4, *[size + at for at in range(dims)]),)
    with torch.no_grad():
        expected = model(*inputs).shape
    (step,) = steps(traced(model, inputs), inputs)
    assert step.outputs[0].shape == tuple(expected)
    operator = step.instruction.operator
    arguments = [
        to_meta(given_tensor)
        if (given_tensor := {0: inputs[0], 1: model.weight, 2: model.bias}.get(at)) is not None
        else value
        for at, value in enumerate(step.arguments)
    ]
    if not options["bias"]:
        arguments[2] = None
    found = convolution_on_meta(operator, arguments)
    assert found is not None
    assert found.shape == expected


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Conv2d(4, 8, 3), torch.randn(4, 6, 6)),
        (nn.Conv2d(4, 8, 3, padding="same"), torch.randn(1, 4, 6, 6)),
        (
            nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last),
            torch.randn(1, 4, 6, 6).to(memory_format=torch.channels_last),
        ),
    ],
)
def test_what_is_not_plain_is_left_to_torch(model, inputs):
    program = scripted(model.eval())
    (step,) = steps(program, (inputs,))
    with torch.no_grad():
        assert step.outputs[0].shape == tuple(model(inputs).shape)
    operator = next(i.operator for i in walk(program.block) if "conv" in i.kind)
    arguments = list(step.arguments)
    arguments[:3] = [to_meta(inputs), to_meta(model.weight), to_meta(model.bias)]
    assert convolution_on_meta(operator, arguments) is None


def test_channels_that_do_not_fit_are_left_to_torch():
    model, inputs = nn.Conv2d(4, 8, 3).eval(), (torch.randn(1, 4, 6, 6),)
    (step,) = steps(traced(model, inputs), inputs)
    arguments = list(step.arguments)
    arguments[:3] = [to_meta(torch.randn(1, 3, 6, 6)), to_meta(model.weight), to_meta(model.bias)]
    assert convolution_on_meta(step.instruction.operator, arguments) is None


@pytest.mark.parametrize("name", sorted(_ACTIVATIONS))
@pytest.mark.parametrize("inputs", [torch.randn(2, 3), torch.randn(2, 4, 5).transpose(1, 2)])
def test_activations_keep_shape_type_and_order(name, inputs):
    call = getattr(torch.ops.aten, name.removeprefix("aten::"))
    given = inputs.to(torch.bfloat16)
    program = traced(Applied(call), (given,))
    (step,) = [step for step in record(program, (given,)).steps if step.kind == name]
    expected = call(given)
    assert step.outputs[0].shape == tuple(expected.shape)
    assert step.outputs[0].dtype == expected.dtype
    found = run_on_meta(step.instruction, [to_meta(given), *step.arguments[1:]])
    assert found.stride() == expected.stride()


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("aten::adaptive_avg_pool2d", lambda x: nn.functional.adaptive_avg_pool2d(x, (2, 3))),
        ("aten::adaptive_avg_pool3d", lambda x: nn.functional.adaptive_avg_pool3d(x, 1)),
        ("aten::mean", lambda x: x.mean([2, -1])),
        ("aten::mean", lambda x: x.mean((1, 3), keepdim=True)),
        ("aten::mean", lambda x: x.transpose(1, 3).mean(2)),
        ("aten::mean", lambda x: x.mean()),
        ("aten::mean", lambda x: x.mean(1, dtype=torch.float64)),
    ],
)
def test_averages(kind, call):
    inputs = torch.randn(2, 3, 4, 5)
    (step,) = [
        s for s in record(traced(Applied(call), (inputs,)), (inputs,)).steps if s.kind == kind
    ]
    expected = call(inputs)
    assert step.outputs[0].shape == tuple(expected.shape)
    assert step.outputs[0].dtype == expected.dtype
