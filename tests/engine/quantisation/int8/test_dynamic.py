"""Dynamic int8: against integer arithmetic, in a fresh process, and what stays as it is.

Annotations are evaluated here: torch.jit.script reads those of methods as types, not strings.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.errors import NothingQuantised, PatternMatchesNothing, WeightsNotNumbers
from engine.quantisation.int8.dynamic import quantise_dynamic
from engine.quantisation.int8.result import Int8Result
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, traced
from tests.engine.quantisation.int8.stock import run_fresh
from tests.zoo.families import Gpt2, Llama

WORDS = torch.tensor([[1, 5, 2, 9, 3], [4, 0, 7, 10, 6]])


def run(result: Int8Result, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = torch.jit.load(io.BytesIO(result.to_bytes()))(*inputs)  # type: ignore[no-untyped-call]
    return output


def forms(result: Int8Result) -> dict[str, str]:
    return {layer.name: layer.form for layer in result.layers}


SMALLEST_STEP = 6.1e-5
"""Torch makes no step of an input smaller."""


def by_integers(x: Tensor, weight: Tensor, bias: Tensor | None) -> np.ndarray:
    """What a dynamic linear layer computes, in integers: 7 bits of input, 8 of weight."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 127
    zero = round(-low / step)
    step = max(step, SMALLEST_STEP)
    codes = np.clip(np.round(x.double().numpy() / step) + zero, 0, 127).astype(np.int64)
    scales = weight.abs().amax(1).double().numpy() / 127
    rows = np.round(weight.double().numpy() / scales[:, None]).astype(np.int64)
    sums = (codes - zero) @ rows.T
    return sums * step * scales + (0.0 if bias is None else bias.double().numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_equals_integer_arithmetic(bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 3, bias=bias), torch.randn(4, 7)
    expected = by_integers(x, layer.weight.detach(), layer.bias.detach() if bias else None)
    found = run(quantise_dynamic(scripted(nn.Sequential(layer))), x).numpy()
    assert np.abs(found - expected).max() < 1e-5
    # Integers are not what floating point gives.
    assert np.abs(found - layer(x).detach().numpy()).max() > 1e-4


@settings(max_examples=25)
@given(
    rows=st.lists(st.integers(1, 4), min_size=0, max_size=2),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 20),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_any_shape_equals_integer_arithmetic(
    rows: list[int], inputs: int, outputs: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(inputs * 41 + outputs)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator))
    x = size * torch.randn(*rows, 2, inputs, generator=generator)
    expected = by_integers(x, layer.weight.detach(), layer.bias.detach())
    found = quantise_dynamic(scripted(nn.Sequential(layer))).program.run([x]).numpy()
    terms = float(x.abs().max()) * float(layer.weight.abs().sum(1).max()) + 1.0
    assert np.abs(found - expected).max() <= 1e-6 * terms


class Reader(nn.Module):
    def __init__(self, kind: type, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(words))[0].mean(1))


OPTIONS = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}]


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[Program, list[Tensor]]]:
    torch.manual_seed(0)
    made: dict[str, tuple[Program, list[Tensor]]] = {
        "mlp": (scripted(nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 2))),
                [torch.randn(3, 9)]),
    }  # fmt: skip
    for kind in (nn.LSTM, nn.GRU):
        for number, options in enumerate(OPTIONS):
            model = Reader(kind, **options)
            made[f"{kind.__name__} {number}"] = scripted(model), [WORDS]
    made["gpt2"] = scripted(Gpt2()), [WORDS]
    made["llama"] = traced(Llama(), [WORDS]), [WORDS]
    return made


def test_files_run_in_a_fresh_process_on_every_engine(
    programs: dict[str, tuple[Program, list[Tensor]]], tmp_path: Path
) -> None:
    results = {name: quantise_dynamic(program) for name, (program, _) in programs.items()}
    engines = tuple(e for e in torch.backends.quantized.supported_engines if e != "none")
    assert len(engines) > 1
    cases = {
        name: (results[name].to_bytes(), list(inputs)) for name, (_, inputs) in programs.items()
    }
    for (engine, name), output in run_fresh(cases, tmp_path, engines).items():
        program, inputs = programs[name]
        expected = program.run(inputs)
        error = float((output - expected).abs().max() / expected.abs().max())
        assert error < 0.08, (engine, name)
        if engine == torch.backends.quantized.engine:
            assert torch.equal(output, run(results[name], *inputs)), name


def test_recurrent_layers_and_heads_compute_in_int8(
    programs: dict[str, tuple[Program, list[Tensor]]],
) -> None:
    for name, (program, _) in programs.items():
        layers = quantise_dynamic(program).layers
        compute = [layer for layer in layers if layer.op != "embedding"]
        assert compute, name
        assert all(layer.form == "int8" and not layer.reason for layer in compute), name
        for layer in layers:
            if layer.op == "embedding":
                assert layer.form == "int8_weight"
                assert "no operator for embedding" in layer.reason


def test_the_program_that_was_given_stays(
    programs: dict[str, tuple[Program, list[Tensor]]],
) -> None:
    program, inputs = programs["mlp"]
    before, names = program.run(inputs), list(program.attributes())
    quantise_dynamic(program)
    assert torch.equal(program.run(inputs), before)
    assert list(program.attributes()) == names


def test_what_is_excluded_stays_bit_for_bit() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(2, 8)
    result = quantise_dynamic(scripted(model), exclude=["1"])
    assert forms(result) == {"0": "int8", "1": "float"}
    assert "excludes" in result.layers[1].reason
    state = torch.jit.load(io.BytesIO(result.to_bytes())).state_dict()  # type: ignore[no-untyped-call]
    assert sorted(state) == ["1.bias", "1.weight"]
    assert torch.equal(state["1.weight"], model[1].weight)
    hidden = run(quantise_dynamic(scripted(nn.Sequential(model[0]))), x)
    assert torch.equal(run(result, x), model[1](hidden))


def test_an_exclusion_of_nothing_is_refused() -> None:
    with pytest.raises(PatternMatchesNothing, match="`fc`"):
        quantise_dynamic(scripted(nn.Sequential(nn.Linear(2, 2))), exclude=["fc"])


class Tied(nn.Module):
    """A table that is the last layer as well."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 32)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.table(words))


def test_a_weight_with_two_readers_is_in_the_file_once() -> None:
    torch.manual_seed(0)
    model, words = Tied(), torch.tensor([[3, 39]])
    result = quantise_dynamic(scripted(model))
    size = len(result.to_bytes())
    assert size < 40 * 32 + 40 * 4 + 2_800
    assert torch.allclose(run(result, words), model(words), atol=0.05 * float(model(words).max()))
    # Saved once more by stock torch, it is the same.
    loaded, again = torch.jit.load(io.BytesIO(result.to_bytes())), io.BytesIO()  # type: ignore[no-untyped-call]
    torch.jit.save(loaded, again)  # type: ignore[no-untyped-call]
    again.seek(0)
    assert torch.equal(torch.jit.load(again)(words), loaded(words))  # type: ignore[no-untyped-call]


def test_a_weight_shared_with_an_excluded_layer_stays() -> None:
    with pytest.raises(NothingQuantised) as caught:
        quantise_dynamic(scripted(Tied()), exclude=["head"])
    assert "exclude" in caught.value.hint


class Control(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.loops = 3

    def forward(self, x: Tensor, deep: bool) -> Tensor:
        if deep:
            for _ in range(self.loops):
                x = torch.relu(self.first(x))
        else:
            x = self.second(x).relu_()
        return self.second(x)


def test_branches_and_loops() -> None:
    torch.manual_seed(0)
    model, x = Control(), torch.randn(5, 6)
    result = quantise_dynamic(scripted(model))
    assert forms(result) == {"first": "int8", "second": "int8"}
    loaded = torch.jit.load(io.BytesIO(result.to_bytes()))  # type: ignore[no-untyped-call]
    for deep in (True, False):
        expected = model(x, deep)
        assert float((loaded(x, deep) - expected).abs().max()) < 0.03 * float(expected.abs().max())


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.moving = nn.Parameter(torch.eye(4))
        self.pair = nn.Bilinear(4, 4, 2)
        self.rnn = nn.RNN(4, 4)
        self.projected = nn.LSTM(4, 4, proj_size=2)
        self.conv = nn.Conv1d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.moving += 1.0
        y = torch.nn.functional.linear(self.fc(x), self.moving)
        recurrent = self.rnn(y[None])[0][0] + self.projected(y[None])[0][0].sum(1, keepdim=True)
        return self.pair(y, recurrent) + self.conv(y[:, None]).sum(2)


def test_what_has_no_int8_form_is_named() -> None:
    result = quantise_dynamic(scripted(Odd()))
    told = {layer.name: (layer.form, layer.reason) for layer in result.layers}
    assert told["fc"] == ("int8", "")
    assert "no int8 operator for bilinear" in told["pair"][1]
    assert "no int8 operator for rnn_tanh" in told["rnn"][1]
    assert "projections" in told["projected"][1]
    assert told["conv"][0] == "int8_weight"
    moving = [reason for form, reason in told.values() if "computed while it runs" in reason]
    assert len(moving) == 1


def test_half_precision_is_refused_with_the_reason() -> None:
    with pytest.raises(NothingQuantised) as caught:
        quantise_dynamic(scripted(nn.Sequential(nn.Linear(4, 4)).half()))
    assert "its weight is float16" in caught.value.hint


def test_nothing_to_quantise_is_refused() -> None:
    with pytest.raises(NothingQuantised, match="no layer of the model") as caught:
        quantise_dynamic(scripted(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3))))
    assert "no linear" in caught.value.hint


def test_a_weight_of_nan_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[1, 2] = float("nan")
    with pytest.raises(WeightsNotNumbers, match=r"`0\.weight`"):
        quantise_dynamic(scripted(model))


def test_large_networks_shrink_almost_four_times() -> None:
    program = scripted(nn.Sequential(nn.Linear(256, 300), nn.ReLU(), nn.Linear(300, 10)))
    assert len(program.to_bytes()) / len(quantise_dynamic(program).to_bytes()) > 3.8
