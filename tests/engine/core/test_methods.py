"""Exported methods besides forward: pruned along with it, or left as they are with a reason."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.certify import certify, relative_error
from engine.compaction import compact
from engine.coupling import Coupling, couple
from engine.torchscript.program import Program
from tests.engine.core.programs import group_sizes, half, halve, scripted, uploaded


class AutoEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 4)
        self.c = nn.Linear(4, 10)
        self.d = nn.Linear(10, 6)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        return self.d(torch.relu(self.c(z)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


X = [torch.linspace(-1, 1, 12).reshape(2, 6)]


def zeroed(program: Program, coupling: Coupling, removed: np.ndarray) -> Program:
    """A copy with zeros in every slice of the removed channels."""
    masked = program.copy()
    gone = set(removed.tolist())
    for item in coupling.slices:
        for name in coupling.tape.aliases[item.tensor]:
            tensor = masked.attributes()[name].detach()
            indices = [i for i, own in enumerate(item.component.tolist()) if own in gone]
            masked.set_tensor(name, tensor.index_fill(item.dim, torch.tensor(indices), 0.0))
    return masked


def agree(
    program: Program, arguments: dict[str, Sequence[Any]], seed: int = 0
) -> tuple[Program, Coupling]:
    """Remove half; every method must give what the zeroed copy gives."""
    coupling = couple(program, X)
    removed = half(coupling, seed)
    assert removed.size, [item.reason for item in coupling.frozen]
    compacted = compact(program, coupling, removed, X)
    certificate = certify(program, compacted, coupling, removed, X)
    assert certificate.passed
    masked, saved = zeroed(program, coupling, removed), compacted.read_back()
    for method, given in arguments.items():
        expected = getattr(masked.module, method)(*given)
        for own in (compacted, saved):
            torch.testing.assert_close(getattr(own.module, method)(*given), expected)
    return compacted, coupling


def shapes(program: Program) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in program.attributes().items()}


def test_methods_that_forward_calls_are_pruned_along() -> None:
    z = torch.randn(3, 4)
    program = scripted(AutoEncoder())
    compacted, coupling = agree(program, {"forward": X, "encode": X, "decode": [z]})
    # The hidden units go; the code between the methods is what encode gives, and stays.
    assert group_sizes(coupling) == {"a": 8, "c": 10}
    found = shapes(compacted)
    assert found["a.weight"] == [4, 6]
    assert found["b.weight"] == [4, 4]
    assert found["c.weight"] == [5, 4]
    assert found["d.weight"] == [6, 5]
    assert coupling.methods.refused == {}


def test_removing_one_hidden_unit_by_hand() -> None:
    program = scripted(AutoEncoder())
    coupling = couple(program, X)
    unit = next(item for item in coupling.slices if item.tensor == "c.weight" and item.dim == 0)
    removed = unit.component[[7]]
    compacted = compact(program, coupling, removed, X)
    kept = [0, 1, 2, 3, 4, 5, 6, 8, 9]
    weights = program.attributes()
    assert torch.equal(compacted.attributes()["c.weight"], weights["c.weight"][kept])
    assert torch.equal(compacted.attributes()["c.bias"], weights["c.bias"][kept])
    assert torch.equal(compacted.attributes()["d.weight"], weights["d.weight"][:, kept])
    z = torch.randn(5, 4)
    hidden = torch.relu(z @ weights["c.weight"][kept].T + weights["c.bias"][kept])
    expected = hidden @ weights["d.weight"][:, kept].T + weights["d.bias"]
    torch.testing.assert_close(compacted.module.decode(z), expected)


def test_every_later_stage_keeps_the_methods() -> None:
    z = torch.randn(3, 4)
    program, _ = agree(scripted(AutoEncoder()), {"decode": [z]})
    for own in (program.twin(), program.copy(), program.read_back()):
        again, coupling = agree(own, {"forward": X, "encode": X, "decode": [z]})
        assert group_sizes(coupling) == {"a": 4, "c": 5}
        assert shapes(again)["a.weight"] == [2, 6]


class WithShapes(nn.Module):
    """Its methods hold sizes of pruned layers; they call each other and a private one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 9, 4)

    def _maps(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        return self.head(self._maps(x).reshape(-1, 72))

    @torch.jit.export
    def scores(self, x: Tensor, scale: float) -> Tensor:
        return torch.softmax(self.features(x) * scale, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x, 2.0)


def test_sizes_baked_into_a_method_are_repaired() -> None:
    x = torch.randn(2, 2, 3, 3)
    program = scripted(WithShapes())
    compacted, certificate, coupling = halve(program, [x])
    assert certificate.passed
    assert certificate.batch_sizes == [2, 3]
    assert group_sizes(coupling) == {"conv": 8}
    assert shapes(compacted)["head.weight"] == [4, 36]
    masked = zeroed(program, coupling, half(coupling))
    for batch in (1, 2, 5):
        y = torch.randn(batch, 2, 3, 3)
        for own in (compacted, compacted.read_back()):
            torch.testing.assert_close(own.module.features(y), masked.module.features(y))
            torch.testing.assert_close(own.module.scores(y, 3.0), masked.module.scores(y, 3.0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.c, self.d = nn.Linear(4, 10), nn.Linear(10, 6)

    def encode(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))

    def decode(self, z: Tensor) -> Tensor:
        return self.d(torch.relu(self.c(z)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def traced_methods(model: nn.Module, inputs: dict[str, Any]) -> Program:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return uploaded(torch.jit.trace_module(model.eval(), inputs, check_trace=False))


def test_traced_methods_take_forward_s_inputs_or_what_another_one_gives() -> None:
    z = torch.randn(2, 4)
    program = traced_methods(Plain(), {"forward": X[0], "decode": z, "encode": X[0]})
    compacted, coupling = agree(program, {"forward": X, "encode": X, "decode": [z]})
    assert coupling.methods.sources == {"encode": "the inputs of forward", "decode": "encode"}
    assert group_sizes(coupling) == {"a": 8, "c": 10}
    assert shapes(compacted)["c.weight"] == [5, 4]


class OneBatch(Plain):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z.reshape(2, 4))


def test_traced_methods_that_are_fixed_to_their_batch_size() -> None:
    z = torch.randn(2, 4)
    program = traced_methods(OneBatch(), {"forward": X[0], "encode": X[0], "decode": z})
    compacted, certificate, coupling = halve(program, X)
    assert certificate.passed
    assert certificate.batch_sizes == [2]
    assert coupling.methods.refused == {}
    masked = zeroed(program, coupling, half(coupling))
    torch.testing.assert_close(compacted.module.decode(z), masked.module.decode(z))


class NeverCalled(AutoEncoder):
    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x)).mean(1)

    @torch.jit.export
    def nothing(self) -> Tensor:
        return self.b.bias


def test_a_method_with_the_inputs_of_forward_and_one_without_any() -> None:
    program = scripted(NeverCalled())
    compacted, coupling = agree(program, {"encode": X, "nothing": []})
    assert coupling.methods.refused == {}
    # A mean over the units is another mean without some of them.
    assert group_sizes(coupling) == {"a": 8, "c": 10}
    assert shapes(compacted)["a.weight"] == [4, 6]


class TwoWays(AutoEncoder):
    @torch.jit.export
    def after(self, code: Tensor) -> Tensor:
        """Meant for what `encode` gives; it runs on the inputs of forward, the other way."""
        return self.c(code) if code.shape[-1] == 4 else code


def test_where_sizes_of_guessed_inputs_choose_all_ways_stay_open() -> None:
    z = torch.randn(3, 4)
    compacted, coupling = agree(scripted(TwoWays()), {"after": [z], "decode": [z]})
    assert coupling.methods.sources["after"] == "the inputs of forward"
    assert group_sizes(coupling) == {"a": 8}
    assert shapes(compacted)["c.weight"] == [10, 4]
    assert any("a size decides" in item.reason for item in coupling.frozen)


class Refused(AutoEncoder):
    """Has another exported method that cannot be followed, over the layer `c`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))


class TakesOther(Refused):
    @torch.jit.export
    def other(self, z: Tensor, power: int) -> Tensor:
        return self.c(z) ** power


class Writes(Refused):
    @torch.jit.export
    def other(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.c(x[:, :4])


class Raises(Refused):
    @torch.jit.export
    def other(self, x: Tensor) -> Tensor:
        if x.shape[1] != 5:
            raise ValueError("five columns are wanted")
        return self.c(x[:, :4])


class WrongShape(Refused):
    @torch.jit.export
    def other(self, x: Tensor) -> Tensor:
        return self.c(x.reshape(-1, 5))


class ReadsState(Refused):
    @torch.jit.export
    def other(self, x: Tensor) -> Tensor:
        return self.c(x[:, :4]) * self.calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.decode(self.encode(x))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (TakesOther, "what it takes is not known"),
        (Writes, "it writes to `calls`"),
        (Raises, "it does not run on the inputs of forward: "),
        (WrongShape, "it does not run on the inputs of forward: "),
        (ReadsState, "it reads what forward writes: `calls`"),
    ],
)
def test_what_a_method_reads_stays_where_it_cannot_be_followed(
    model: type[Refused], reason: str
) -> None:
    program = scripted(model())
    z = torch.randn(3, 4)
    compacted, coupling = agree(program, {"forward": X, "encode": X, "decode": [z]})
    assert list(coupling.methods.sources) == ["decode", "encode"]
    assert coupling.methods.refused["other"].startswith(reason)
    assert group_sizes(coupling) == {"a": 8}
    assert any(
        item.layer == "c" and f"`other` reads this weight, and {reason}" in item.reason
        for item in coupling.frozen
    )
    assert shapes(compacted)["c.weight"] == [10, 4]


class Language(nn.Module):
    """Scripted transformer layers choose a fused operator at run time, in every method."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.embed = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 20)

    @torch.jit.export
    def features(self, ids: Tensor) -> Tensor:
        return self.encoder(self.embed(ids))

    @torch.jit.export
    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.features(ids))


class Variational(AutoEncoder):
    """Random numbers are drawn in a method, which gives and takes several tensors."""

    @torch.jit.export
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.a(x))
        return self.b(hidden), self.b(-hidden)

    @torch.jit.export
    def draw(self, mean: Tensor, spread: Tensor) -> Tensor:
        return mean + torch.randn_like(spread) * torch.exp(spread)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.encode(x)
        return self.decode(self.draw(mean, spread)), mean


class Stepping(nn.Module):
    """Forward keeps a state and calls its methods in a loop and with structured arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 6)
        self.rounds = 0
        self.register_buffer("seen", torch.zeros(1))

    @torch.jit.export
    def step(self, x: Tensor, options: dict[str, Tensor], times: int | None) -> Tensor:
        if x.sum() > 0:
            x = x + options["shift"]
        return self.b(torch.relu(self.a(x))) * (1 if times is None else times)

    @torch.jit.export
    def many(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([self.step(part, {"shift": part}, None) for part in parts])

    def forward(self, x: Tensor, rounds: int = 2) -> Tensor:
        self.rounds += 1
        self.seen.add_(1)
        for _ in range(rounds):
            x = self.step(x, {"shift": x}, rounds)
        return self.many([x, x[:1]])


@pytest.mark.parametrize(
    ("model", "inputs", "groups"),
    [
        (Language, [torch.arange(10).reshape(2, 5)], {"encoder.layers.0.linear1": 32}),
        (Variational, X, {"a": 8, "c": 10}),
        (Stepping, X, {"a": 8}),
    ],
)
def test_methods_of_many_kinds(
    model: type[nn.Module], inputs: list[Tensor], groups: dict[str, int]
) -> None:
    _, certificate, coupling = halve(scripted(model()), inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert certificate.batch_sizes == [2, 3]
    assert coupling.methods.refused == {}
    assert set(coupling.methods.sources.values()) == {"what forward gives it"}
    assert groups.items() <= group_sizes(coupling).items()


class Predicting(Language):
    @torch.jit.export
    def predict(self, ids: Tensor) -> Tensor:
        return self.forward(ids).argmax(-1)


@pytest.mark.exhaustive
def test_a_method_that_calls_forward_takes_its_inputs() -> None:
    program = scripted(Predicting())
    ids = [torch.arange(10).reshape(2, 5)]
    compacted, certificate, coupling = halve(program, ids)
    assert certificate.passed
    assert coupling.methods.sources["predict"].startswith("the inputs of forward, to which")
    # The sizes that attention looks at are those of forward: nothing is frozen for them.
    assert group_sizes(coupling) == group_sizes(couple(scripted(Language()), ids))
    masked = zeroed(program, coupling, half(coupling))
    assert torch.equal(compacted.module.predict(ids[0]), masked.module.predict(ids[0]))


class Regions(AutoEncoder):
    @torch.jit.export
    def without(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.b(self.a(x))

    @torch.jit.export
    def within(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=True):
            return self.d(self.c(x[:, :4]))


def test_only_methods_that_switch_autocast_on_hold_their_weights() -> None:
    coupling = couple(scripted(Regions()), X)
    assert list(coupling.methods.sources) == ["decode", "encode", "without"]
    assert "torch.amp.autocast_mode.autocast" in coupling.methods.refused["within"]
    assert group_sizes(coupling) == {"a": 8}


class Classifier(AutoEncoder):
    """What it predicts is an integer: outputs alone prove little."""

    @torch.jit.export
    def predict(self, x: Tensor) -> Tensor:
        hidden = self.c(self.b(torch.relu(self.a(x))))
        return self.d(hidden.masked_fill(hidden < 0, -torch.inf).clamp_min(0.0)).argmax(1)


def test_a_method_that_gives_integers_is_compared_inside() -> None:
    program = scripted(Classifier())
    coupling = couple(program, X)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, X)
    certificate = certify(program, compacted, coupling, removed, X)
    assert certificate.passed
    assert "all inner tensors were compared" in certificate.detail
    masked = zeroed(program, coupling, removed)
    assert torch.equal(compacted.module.predict(X[0]), masked.module.predict(X[0]))
    # A mistake that no argmax shows is found inside.
    wrong = copy.deepcopy(compacted.module)
    with torch.no_grad():
        wrong.a.bias.add_(1e-6)
    found = certify(program, Program(wrong, "cpu"), coupling, removed, X)
    assert not found.passed


def test_a_wrong_method_fails_the_certificate() -> None:
    program = scripted(NeverCalled())
    coupling = couple(program, X)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, X)
    constant = next(
        node for node in compacted.graph_of_method("decode").nodes() if node.kind() == "aten::relu"
    )
    constant.output().replaceAllUsesWith(next(constant.inputs()))
    certificate = certify(program, compacted, coupling, removed, X)
    assert not certificate.passed
    assert relative_error(compacted.run(X), zeroed(program, coupling, removed).run(X)) < 1e-5


class NamedCode(AutoEncoder):
    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x))).to(torch.float32) + torch.ones(4)


def test_casts_and_constants_of_a_method_are_float64_in_the_certificate() -> None:
    agree(scripted(NamedCode()), {"forward": X, "encode": X})


def test_frozen_uploads_keep_their_methods() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.freeze(torch.jit.script(AutoEncoder().eval()), ["encode", "decode"])
    z = torch.randn(3, 4)
    program = uploaded(module)
    compacted, coupling = agree(program, {"forward": X, "encode": X, "decode": [z]})
    assert coupling.methods.sources == {"encode": "the inputs of forward", "decode": "encode"}
    assert shapes(compacted)["linear_2.weight"] == [5, 4]
