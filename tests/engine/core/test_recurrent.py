"""Recurrent layers: exact shapes at 50 %, numbers by hand, states, projections, packed sequences.

Annotations are evaluated here: torch.jit.script reads those of methods as types, not strings.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from engine.certify import TOLERANCE, certify, relative_error
from engine.compaction import compact, run_masked
from engine.compaction.conflict import CompactionConflict
from engine.coupling import couple
from engine.torchscript.instructions import Operator, operator_of, walk
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.torchscript.recurrent_shapes import recurrent_on_meta
from tests.engine.core.programs import half, halve, scripted, traced, uploaded

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
KINDS = list(GATES)
WORDS = [torch.tensor([[1, 5, 2, 9, 3], [4, 0, 7, 10, 6]])]


class Reader(nn.Module):
    """Embedding of 6, a recurrent layer of 8 (or a projection), the mean over time, 3 classes."""

    def __init__(self, kind: type, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.rnn = kind(6, 8, batch_first=True, **options)
        width = options.get("proj_size", 8) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(words))[0].mean(1))


def export(model: nn.Module, form: str, inputs: list[Tensor]) -> Program:
    return scripted(model) if form == "scripted" else traced(model, inputs)


def shapes(program: Program) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in program.parameters().items()}


@torch.no_grad()
def exact(program: Program, inputs: list[Tensor], others: list[Tensor]) -> Program:
    """Half of everything removed: certified, and equal to the masked-dense on other inputs too."""
    coupling = couple(program, inputs)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, inputs)
    certificate = certify(program, compacted, coupling, removed, inputs)
    assert (certificate.passed, certificate.kind) == (True, "exact"), certificate
    assert certificate.max_relative_error <= TOLERANCE
    assert len(certificate.batch_sizes) == 2
    wide = [other.double() if other.is_floating_point() else other for other in others]
    masked = run_masked(program, coupling, removed, wide).float()
    assert relative_error(masked, compacted.run(others)) < 1e-5
    # The certificate's reference is not all zeros.
    assert float(masked.detach().abs().max()) > 1e-3
    return compacted


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_half_the_units(kind: type, layers: int, bidirectional: bool, form: str) -> None:
    torch.manual_seed(0)
    model = Reader(kind, num_layers=layers, bidirectional=bidirectional)
    program = export(model, form, WORDS)
    longer = [torch.randint(0, 11, (3, 9))]
    compacted = exact(program, WORDS, longer)
    gates, directions = GATES[kind], 2 if bidirectional else 1
    expected: dict[str, tuple[int, ...]] = {
        "table.weight": (11, 3),
        "head.weight": (3, 4 * directions),
        "head.bias": (3,),
    }
    for layer, suffix in itertools.product(range(layers), ["", "_reverse"][:directions]):
        reads = 3 if layer == 0 else 4 * directions
        expected[f"rnn.weight_ih_l{layer}{suffix}"] = (gates * 4, reads)
        expected[f"rnn.weight_hh_l{layer}{suffix}"] = (gates * 4, 4)
        expected[f"rnn.bias_ih_l{layer}{suffix}"] = (gates * 4,)
        expected[f"rnn.bias_hh_l{layer}{suffix}"] = (gates * 4,)
    assert shapes(compacted) == expected
    reloaded = Program.load(compacted.to_bytes())
    assert torch.equal(reloaded.run(longer), compacted.run(longer))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(2, 3), nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def test_one_unit_of_three_by_hand() -> None:
    model = Plain()
    values = {
        "rnn.weight_ih_l0": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
        "rnn.weight_hh_l0": [[0.11, 0.12, 0.13], [0.21, 0.22, 0.23], [0.31, 0.32, 0.33]],
        "rnn.bias_ih_l0": [0.01, 0.02, 0.03],
        "rnn.bias_hh_l0": [0.04, 0.05, 0.06],
        "head.weight": [[0.7, 0.8, 0.9], [-0.7, -0.8, -0.9]],
    }
    model.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    inputs = [torch.tensor([[[1.0, 0.5]], [[-1.0, 2.0]]])]  # two steps, one sample
    program = traced(model, inputs)
    coupling = couple(program, inputs)
    (group,) = coupling.groups
    assert (group.name, group.components.size) == ("rnn", 3)
    rows = next(
        item for item in coupling.slices if (item.tensor, item.dim) == ("rnn.weight_ih_l0", 0)
    )
    removed = rows.component[1:2]
    compacted = compact(program, coupling, removed, inputs)
    kept = {
        "rnn.weight_ih_l0": [[0.1, 0.2], [0.5, 0.6]],
        "rnn.weight_hh_l0": [[0.11, 0.13], [0.31, 0.33]],
        "rnn.bias_ih_l0": [0.01, 0.03],
        "rnn.bias_hh_l0": [0.04, 0.06],
        "head.weight": [[0.7, 0.9], [-0.7, -0.9]],
    }
    assert compacted.parameters().keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(compacted.parameters()[name], torch.tensor(value)), name
    # h1 = tanh(W x1 + b), h2 = tanh(W x2 + b + U h1), y = V h, of the kept rows and columns.
    h1 = np.tanh([0.1 + 0.1 + 0.05, 0.5 + 0.3 + 0.09])
    a = 0.11 * h1[0] + 0.13 * h1[1]
    b = 0.31 * h1[0] + 0.33 * h1[1]
    h2 = np.tanh([-0.1 + 0.4 + 0.05 + a, -0.5 + 1.2 + 0.09 + b])
    expected = [[0.7 * h[0] + 0.9 * h[1], -0.7 * h[0] - 0.9 * h[1]] for h in (h1, h2)]
    found = compacted.run(inputs)[:, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Given(nn.Module):
    """Initial states from the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn, self.head = nn.Linear(5, 6), nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return self.head(self.rnn(self.first(x), (h, c))[0])


def test_states_given_as_inputs_freeze_the_units_and_say_so() -> None:
    inputs = [torch.randn(4, 2, 5), torch.randn(1, 2, 8), torch.randn(1, 2, 8)]
    for program in (traced(Given(), inputs), scripted(Given())):
        compacted, certificate, coupling = halve(program, inputs)
        assert certificate.passed
        assert shapes(compacted)["first.weight"] == (3, 5)
        assert shapes(compacted)["rnn.weight_ih_l0"] == (32, 3)
        assert shapes(compacted)["rnn.weight_hh_l0"] == (32, 8)
        frozen = [item for item in coupling.frozen if item.layer == "rnn"]
        assert [(item.op, item.channels) for item in frozen] == [("aten::lstm", 8)]
        assert "initial state of a recurrent layer" in frozen[0].reason


class Learned(nn.Module):
    """Initial states that are a parameter, and ones: whatever a lone unit holds, nobody reads."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.rnn, self.head = kind(6, 8), nn.Linear(8, 3)
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.pair = isinstance(self.rnn, nn.LSTM)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start.expand(1, x.shape[1], 8)
        if self.pair:
            return self.head(self.rnn(x, (h, torch.ones(1, x.shape[1], 8)))[0])
        return self.head(self.rnn(x, h)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_not_zero_shrink_along(kind: type) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(4, 1, 6)]
    program = traced(Learned(kind), inputs)
    compacted = exact(program, inputs, [torch.randn(7, 1, 6)])
    assert shapes(compacted)["start"] == (1, 1, 4)
    assert shapes(compacted)["rnn.weight_hh_l0"] == (GATES[kind] * 4, 4)


class Final(nn.Module):
    """The last states instead of the outputs, of both directions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, num_layers=2, bidirectional=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.rnn(x)
        return self.head(torch.cat([h[-2], h[-1], c[0]], 1))


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_final_states(form: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(4, 2, 6)]
    compacted = exact(export(Final(), form, inputs), inputs, [torch.randn(7, 2, 6)])
    assert shapes(compacted)["head.weight"] == (3, 12)
    assert shapes(compacted)["rnn.weight_ih_l1_reverse"] == (16, 8)


class Answers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn, self.head = nn.Linear(5, 6), nn.GRU(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(self.first(x))
        return self.head(y), h


def test_final_states_that_are_outputs_keep_their_size() -> None:
    inputs = [torch.randn(4, 2, 5)]
    compacted, certificate, coupling = halve(traced(Answers(), inputs), inputs)
    assert certificate.passed
    assert shapes(compacted)["first.weight"] == (3, 5)
    assert shapes(compacted)["rnn.weight_hh_l0"] == (24, 8)
    reasons = {item.reason for item in coupling.frozen if item.layer == "rnn"}
    assert reasons == {"the outputs of the model keep their shape"}


class Translator(nn.Module):
    """What the encoder ends with is what the decoder starts with."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(6, 8), nn.GRU(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(x.flip(0), self.encoder(x)[1])[0])


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_a_state_ties_two_layers(form: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(4, 2, 6)]
    program = export(Translator(), form, inputs)
    assert [group.components.size for group in couple(program, inputs).groups] == [8]
    compacted = exact(program, inputs, [torch.randn(7, 2, 6)])
    assert shapes(compacted)["encoder.weight_hh_l0"] == (12, 4)
    assert shapes(compacted)["decoder.weight_hh_l0"] == (12, 4)


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
def test_projection(bidirectional: bool, form: str) -> None:
    torch.manual_seed(0)
    model = Reader(nn.LSTM, num_layers=2, bidirectional=bidirectional, proj_size=6)
    compacted = exact(export(model, form, WORDS), WORDS, [torch.randint(0, 11, (3, 9))])
    found, directions = shapes(compacted), 2 if bidirectional else 1
    assert found["rnn.weight_ih_l0"] == (16, 3)
    assert found["rnn.weight_ih_l1"] == (16, 3 * directions)
    assert found["rnn.weight_hh_l1"] == (16, 3)
    assert found["rnn.weight_hr_l0"] == found["rnn.weight_hr_l1"] == (3, 4)
    assert found["rnn.bias_hh_l1"] == (16,)
    assert found["head.weight"] == (3, 3 * directions)


def test_a_projection_stays_narrower_than_the_cells() -> None:
    """As wide as the cells it would no longer be one: two of eight cells cannot go beside six."""
    program = traced(Reader(nn.LSTM, proj_size=6), WORDS)
    coupling = couple(program, WORDS)
    cells = next(
        item.component
        for item in coupling.slices
        if (item.tensor, item.dim) == ("rnn.weight_hr_l0", 1)
    )
    assert cells.size == 8
    one = compact(program, coupling, cells[:1], WORDS)
    assert shapes(one)["rnn.weight_hr_l0"] == (6, 7)
    with pytest.raises(CompactionConflict, match="would have 6 units and its cells 6") as caught:
        compact(program, coupling, cells[:2], WORDS)
    assert caught.value.components.tolist() == sorted(cells)


class Stepped(nn.Module):
    """Single cells in a loop of the program."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.cell, self.head = kind(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], 8)
        for step in range(x.shape[0]):
            h = self.cell(x[step], h)
        return self.head(h)


class SteppedPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.cell(x[0])
        for step in range(1, x.shape[0]):
            h, c = self.cell(x[step], (h, c))
        return self.head(h + c)


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: type, form: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(4, 1, 6)]
    model = SteppedPair() if kind is nn.LSTMCell else Stepped(kind)
    # A traced loop has the length it was traced with.
    others = [torch.randn(7 if form == "scripted" else 4, 1, 6)]
    compacted = exact(export(model, form, inputs), inputs, others)
    gates = {nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1}[kind]
    assert shapes(compacted)["cell.weight_ih"] == (gates * 4, 6)
    assert shapes(compacted)["cell.weight_hh"] == (gates * 4, 4)
    assert shapes(compacted)["cell.bias_hh"] == (gates * 4,)


class Packed(nn.Module):
    """Sequences of several lengths."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 6), nn.Linear(16, 3)
        self.rnn = kind(6, 8, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.first(x), lengths, batch_first=True)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=4)
        return self.head(y.sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind: type) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 4, 5), torch.tensor([4, 2])]
    compacted, certificate, _ = halve(traced(Packed(kind), inputs), inputs)
    assert (certificate.passed, certificate.kind) == (True, "exact")
    assert shapes(compacted)["rnn.weight_ih_l0_reverse"] == (GATES[kind] * 4, 3)
    assert shapes(compacted)["head.weight"] == (3, 8)
    assert compacted.run([torch.randn(2, 4, 5), torch.tensor([4, 1])]).shape == (2, 3)


def test_units_of_a_sorted_sequence_order_stay() -> None:
    """Features along which something else is decided are none of the layer's units."""

    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0].sort(-1)[0])

    inputs = [torch.randn(4, 2, 6)]
    coupling = couple(traced(Sorted(), inputs), inputs)
    assert not coupling.groups
    assert any(item.op == "aten::sort" and item.channels == 8 for item in coupling.frozen)


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_training_trains_the_layer_and_drops_out(form: str) -> None:
    torch.manual_seed(0)
    program = export(Reader(nn.LSTM, num_layers=2, dropout=0.5), form, WORDS)
    compacted, _, _ = halve(program, WORDS)
    training = training_copy(compacted, batch_norm="train")
    first, second = training.run(WORDS), training.run(WORDS)
    assert not torch.equal(first, second)
    (first.sum() + second.sum()).backward()
    gradients = {name: tensor.grad for name, tensor in training.parameters().items()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    with torch.no_grad():
        training.parameters()["rnn.weight_hh_l1"].zero_()
    after = evaluation_copy(training)
    assert torch.equal(after.run(WORDS), after.run(WORDS))
    assert not torch.equal(after.run(WORDS), compacted.run(WORDS))


def test_scripted_layers_read_their_weights_by_name() -> None:
    program = scripted(Reader(nn.LSTM))
    assert program.module.rnn._flat_weights == []
    assert not [item for item in walk(program.block) if item.name == "_flat_weights"]
    # Its own methods, which nobody calls any more, read them by name too.
    y, (h, _) = program.module.rnn.forward__0(torch.randn(2, 5, 6))
    assert (y.shape, h.shape) == ((2, 5, 8), (1, 2, 8))


class Listed(nn.Module):
    """A list of tensors that are no parameters, and one that the program changes."""

    extra: list[Tensor]
    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.extra = [torch.ones(4), torch.full((4,), 2.0)]
        self.seen = [self.head.weight]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.head(x * self.extra[0] + self.extra[1]) + len(self.seen)


def test_other_lists_of_tensors_stay() -> None:
    model = Listed()
    x = torch.randn(2, 4)
    program = uploaded(torch.jit.script(model))
    assert len(program.module.extra) == 2
    assert len(program.module.seen) == 1
    assert torch.allclose(program.run([x]), model.head(x + 2) + 2)


class Tuples(nn.Module):
    """Inlining leaves tuples of branches behind, which go only when saved and loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def _state(self, x: Tensor, given: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if given is None:
            given = (self.a(x), self.b(x))
        if x.dim() != 2:
            given = (given[0] + 1, given[1] + 1)
        return given

    def forward(self, x: Tensor) -> Tensor:
        h, c = self._state(x, None)
        return self.head(h * c)


def test_copies_of_programs_with_tuples_have_the_same_instructions() -> None:
    program = scripted(Tuples())
    copied = program.copy()
    assert [item.kind for item in walk(copied.block)] == [item.kind for item in walk(program.block)]
    _, certificate, _ = halve(program, [torch.randn(2, 4)])
    assert certificate.passed


def recurrent_operator(name: str, overload: str) -> Operator:
    (schema,) = (
        str(item)
        for item in torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        if item.overload_name == overload
    )
    return operator_of(schema)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_without_unrolling(kind: type, options: dict[str, object]) -> None:
    """The same as torch's, and sizes that do not fit are refused."""
    layer = kind(6, 8, **options).to("meta")
    x = torch.empty(5, 2, 6, device="meta")
    output, states = layer(x)
    pair = isinstance(layer, nn.LSTM)
    name = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn_tanh"}[kind]
    state = torch.zeros(layer.num_layers * (2 if layer.bidirectional else 1), 2, 8, device="meta")
    weights = list(layer._flat_weights)
    arguments = [x, [state, state] if pair else state, weights, layer.bias, layer.num_layers]
    arguments += [0.0, False, layer.bidirectional, False]
    operator = recurrent_operator(name, "input")
    found = recurrent_on_meta(operator, arguments)
    assert [value.shape for value in found] == [
        value.shape for value in (output, *(states if pair else (states,)))
    ]
    for position, weight in enumerate(weights):
        for dim in range(weight.dim()):
            fewer = list(weights)
            fewer[position] = weight.narrow(dim, 0, weight.shape[dim] - 1)
            with pytest.raises(RuntimeError):
                recurrent_on_meta(operator, [*arguments[:2], fewer, *arguments[3:]])
