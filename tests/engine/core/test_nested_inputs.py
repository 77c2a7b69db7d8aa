"""Arguments and results that are no plain tensors, from the upload to a fresh process."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from engine.certify import TOLERANCE, relative_error
from engine.coupling import couple
from engine.pipeline.reload import check_reload
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from tests.engine.core.programs import halve, parameter_count, scripted, traced


class Body(nn.Module):
    """Two layers of 8 channels, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
        self.body = nn.Sequential(*layers)


class DictInput(Body):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.body(batch["left"] - 2 * batch["right"])


class TupleInput(Body):
    def forward(self, pair: tuple[Tensor, tuple[Tensor, int]]) -> Tensor:
        left, (right, factor) = pair
        return self.body(left * factor + right)


class TracedTuple(Body):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.body(pair[0] + pair[1])


class ListInput(Body):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return self.body(torch.cat(parts, 1))


class DeepInput(Body):
    def forward(self, levels: dict[int, list[Tensor]]) -> Tensor:
        return self.body(levels[3][0] + levels[5][1])


class OptionalMask(Body):
    def forward(
        self, x: Tensor, y: Tensor, mask: Tensor | None = None, scale: float = 2.0
    ) -> Tensor:
        if mask is not None:
            x = x * mask
        return self.body(x * scale + y)


class Tokens(Body):
    """`n` says how many tokens a row is cut into; the channels come last."""

    def forward(self, x: Tensor, n: int) -> Tensor:
        return self.body(x.view(x.shape[0], n, 4)).mean(1)


class Found(NamedTuple):
    logits: Tensor
    hidden: dict[str, Tensor]
    steps: int
    name: str
    extra: Tensor | None


class NamedOutput(Body):
    def forward(self, x: Tensor) -> Found:
        y = self.body(x)
        return Found(y, {"twice": y * 2, "half": y / 2}, 3, "found", None)


class DictOutput(Body):
    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], float, list[Tensor]]:
        y = self.body(x)
        return {"logits": y, "norm": y.norm()}, float(y.sum()), [y, y + 1]


X, Y = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)), torch.ones(2, 4)

SCRIPTED: dict[str, tuple[type[Body], list[Any]]] = {
    "dict": (DictInput, [{"left": X, "right": Y}]),
    "tuple": (TupleInput, [(X, (Y, 3))]),
    "list": (ListInput, [[X[:, :1], X[:, 1:]]]),
    "dict of lists": (DeepInput, [{3: [X], 5: [X, Y]}]),
    "mask": (OptionalMask, [X, Y, Y * 0.5, 3.0]),
    "no mask": (OptionalMask, [X, Y, None, 3.0]),
    "defaults": (OptionalMask, [X, Y]),
    "size": (Tokens, [torch.cat([X, Y, X], 1), 3]),
    "named tuple": (NamedOutput, [X]),
    "dict with a number": (DictOutput, [X]),
}
TRACED: dict[str, tuple[type[Body], list[Any]]] = {
    "dict": SCRIPTED["dict"],
    "tuple": (TracedTuple, [(X, Y)]),
    "list": SCRIPTED["list"],
    "two": (OptionalMask, [X, Y]),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("scripted", name) for name in SCRIPTED] + [("traced", name) for name in TRACED],
)
def test_half_of_every_layer_goes_and_the_interface_stays(kind, name, tmp_path):
    made, inputs = (SCRIPTED if kind == "scripted" else TRACED)[name]
    program = scripted(made()) if kind == "scripted" else traced(made(), inputs)
    compacted, certificate, coupling = halve(program, inputs)
    assert [group.components.size for group in coupling.groups] == [8, 8]
    assert parameter_count(compacted) == (4 * 4 + 4) + (4 * 4 + 4) + (4 * 3 + 3)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert certificate.max_relative_error <= TOLERANCE
    assert certificate.batch_sizes == [2, 3]
    compacted.save(tmp_path / "m.pt")
    assert check_reload(compacted, tmp_path / "m.pt", inputs, tmp_path) < 1e-5


def test_a_default_is_what_the_interpreter_takes():
    program = scripted(OptionalMask())
    stepped = Interpreter(program, PlainVisitor()).run([X, Y])
    assert torch.allclose(stepped, program.run([X, Y]))
    assert torch.allclose(stepped, program.run([X, Y, None, 2.0]))


class WritesIntoItsInput(Body):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        batch["left"].add_(1)
        batch["right"] = batch["left"] * 2
        return self.body(batch["right"])


def test_what_a_program_writes_into_its_arguments_stays_its_own():
    batch = {"left": X.clone(), "right": Y}
    program = scripted(WritesIntoItsInput())
    _, certificate, _ = halve(program, [batch])
    assert certificate.passed
    assert torch.equal(batch["left"], X)
    assert batch["right"] is Y


@pytest.mark.parametrize(
    "other",
    [
        {"a": X, "n": 4},
        {"a": X, "n": 3.0},
        {"a": X, "m": 3},
        {"a": X},
        {"a": X, "n": 3, "m": None},
        {"a": [X], "n": 3},
        {"a": X[:1], "n": 3},
        {"a": X.int(), "n": 3},
        {"a": None, "n": 3},
        [X, 3],
    ],
)
def test_outputs_that_differ_in_more_than_rounding_are_infinitely_apart(other):
    assert relative_error({"a": X, "n": 3}, other) == float("inf")


def test_outputs_are_compared_by_key_and_fractions_by_size():
    one = Found(X, {"twice": X * 2, "half": X / 2}, 3, "found", None)
    assert relative_error(one, (X, {"half": X / 2, "twice": X * 2}, 3, "found", None)) == 0
    assert relative_error({"loss": 4.0}, {"loss": 4.5}) == pytest.approx(0.125)
    assert relative_error(float("nan"), float("nan")) == 0
    assert relative_error(float("nan"), 1.0) == float("inf")
    assert relative_error(X.to(torch.complex64), (X * 1.5).to(torch.complex64)) == pytest.approx(
        0.5
    )
    assert relative_error((), ()) == 0


def test_an_unused_entry_of_a_dictionary_changes_nothing():
    coupling = couple(scripted(DictInput()), [{"left": X, "right": Y, "unused": torch.zeros(7)}])
    assert [group.components.size for group in coupling.groups] == [8, 8]
