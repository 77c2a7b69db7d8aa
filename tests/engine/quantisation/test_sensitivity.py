"""Sensitivities of layers and fits to a limit, with numbers worked out by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from secateur.report import Accuracy
from torch import Tensor, nn

from engine.quantisation.encoding import Encoding
from engine.quantisation.sensitivity import (
    KEEP,
    Limit,
    LimitOutOfReach,
    build_from,
    fit_to_limit,
    measure_sensitivities,
    predicted,
)
from engine.scan.layers import forward_of
from engine.scan.measuring import Judge, Measured
from engine.torchscript.program import Program


class Given(Encoding):
    """A weight with the values that a test asks for."""

    scheme = "given"

    def __init__(self, values: Tensor) -> None:
        super().__init__(tuple(values.shape), values.dtype)
        object.__setattr__(self, "values", values)

    @property
    def parts(self) -> dict[str, Tensor]:
        return {"values": self.decode()}

    @property
    def decoder(self) -> str:
        return "def decode(values: Tensor) -> Tensor:\n    return values"

    def decode(self) -> Tensor:
        return self.values  # type: ignore[attr-defined,no-any-return]

    def to_plain(self) -> dict[str, Any]:
        return self.parts

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Given:
        return cls(plain["values"])


class Scales(nn.Module):
    """y = 3 x1 and 4 x2 side by side, by two weights of one element; `tied` is `first` again."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([3.0]))
        self.second = self.first if tied else nn.Parameter(torch.tensor([4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :1] * self.first, x[:, 1:] * self.second], 1)


def program(**options: bool) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Program(torch.jit.script(Scales(**options).eval()), "cpu")


ONES = (torch.ones(1, 2),)


def test_a_sensitivity_is_the_square_of_the_drift_of_one_weight() -> None:
    whole = program()
    build = build_from(
        whole,
        {
            "first": {"4": Given(torch.tensor([3.5])), KEEP: None},
            "second": {"4": Given(torch.tensor([3.0])), "2": Given(torch.tensor([math.inf]))},
        },
    )
    judge = Judge(forward_of(whole), ONES, quantity="drift")
    seen: list[tuple[int, int]] = []
    table = measure_sensitivities(
        judge,
        build,
        {"first": ["4", KEEP], "second": ["4", "2"]},
        advanced=lambda done, total: seen.append((done, total)),
    )
    # Outputs (3, 4) of length 5: half an off 3, one off 4.
    assert table == {
        "first": {"4": pytest.approx(0.25 / 25), KEEP: 0.0},
        "second": {"4": pytest.approx(1 / 25), "2": math.inf},
    }
    assert seen == [(1, 3), (2, 3), (3, 3)]
    # The errors stand in other outputs, so the prediction for both is exact.
    both = judge.measure(build({"first": "4", "second": "4"})).drift
    assert both == pytest.approx(predicted(table["first"]["4"] + table["second"]["4"], "drift"))
    assert torch.equal(whole.attributes()["first"], torch.tensor([3.0]))


def test_a_tied_weight_changes_under_all_of_its_names() -> None:
    build = build_from(program(tied=True), {"first": {"4": Given(torch.tensor([5.0]))}})
    assert torch.equal(build({"first": "4"})(ONES), torch.tensor([[5.0, 5.0]]))


def test_losses_that_fall_count_as_none() -> None:
    class Falling:
        def __init__(self) -> None:
            self.losses = iter([2.0, 3.5, math.nan])

        def measure(self, _forward: Any) -> Measured:
            loss = next(self.losses)
            return Measured(loss=loss if math.isfinite(loss) else None)

    judge: Any = Falling()
    table = measure_sensitivities(
        judge,
        lambda _formats: lambda inputs: inputs,
        {"a": ["8", "4", "2"]},
        of="loss",
        whole=Measured(loss=3.0),
    )
    assert table == {"a": {"8": 0.0, "4": 0.5, "2": math.inf}}


LOWER = Limit("metric", 1, higher_is_better=False)


@pytest.mark.parametrize(
    ("limit", "before", "after", "lost"),
    [
        (Limit("drift", 0.1), Measured(), Measured(drift=0.2), 0.2),
        (Limit("drift", 0.1), Measured(), Measured(), math.inf),
        (Limit("loss", 0.1), Measured(loss=1.0), Measured(loss=1.5), 0.5),
        (Limit("loss", 0.1), Measured(loss=1.0), Measured(), math.inf),
        (Limit("metric", 1), Measured(metric=9.0), Measured(metric=7.0), 2.0),
        (LOWER, Measured(metric=9.0), Measured(metric=7.0), -2.0),
        (LOWER, Measured(metric=9.0), Measured(), math.inf),
    ],
)
def test_what_is_lost(limit: Limit, before: Measured, after: Measured, lost: float) -> None:
    assert limit.lost(before, after) == lost


def test_accuracy_lost_is_a_fraction() -> None:
    def of(correct: int) -> Measured:
        return Measured(accuracy=Accuracy(correct=correct, total=10, top1=correct / 10))

    limit = Limit("accuracy", 0.1)
    assert limit.kept(limit.lost(of(9), of(8)))  # 0.9 - 0.8 is a little more than 0.1
    assert not limit.kept(limit.lost(of(9), of(7)))


COSTS = {name: {"8": 8, "4": 4, "2": 2} for name in "abc"}
SQUARES = {
    "a": {"8": 1e-6, "4": 1e-4, "2": 1e-2},
    "b": {"8": 1e-6, "4": 4e-4, "2": 4e-2},
    "c": {"8": 1e-6, "4": 9e-4, "2": 9e-2},
}


def joint(factor: float, seen: list[Mapping[str, str]]) -> Any:
    """What all lose together, `factor` times what their sum predicts."""

    def measure(formats: Mapping[str, str]) -> float:
        seen.append(dict(formats))
        return factor * math.sqrt(sum(SQUARES[name][form] for name, form in formats.items()))

    return measure


@pytest.mark.parametrize(
    ("factor", "most", "formats"),
    [
        # As predicted: 1e-4 + 4e-4 + 9e-4 = 1.4e-3, of which the root is 0.0374.
        (1.0, 0.038, "444"),
        (1.0, 0.037, "448"),
        # 1e-2 + 4e-4 + 9e-4: 0.1063.
        (1.0, 0.11, "244"),
        (1.0, 1.0, "222"),
        # Twice as much as predicted, and half of it: the measured loss decides.
        (2.0, 0.076, "444"),
        (2.0, 0.0744, "448"),
        (0.5, 0.054, "244"),
    ],
)
def test_the_measured_loss_decides(factor: float, most: float, formats: str) -> None:
    seen: list[Mapping[str, str]] = []
    found = fit_to_limit(COSTS, SQUARES, Limit("drift", most), joint(factor, seen))
    assert "".join(found.allocation.formats[name] for name in "abc") == formats
    assert found.lost <= most
    assert len(found.trials) == len(seen) <= 10
    assert found.lost == pytest.approx(factor * predicted(found.allocation.sensitivity, "drift"))


def test_one_that_cannot_be_kept_says_what_the_best_formats_lose() -> None:
    with pytest.raises(LimitOutOfReach) as raised:
        fit_to_limit(COSTS, SQUARES, Limit("drift", 0.001), joint(1.0, []))
    assert raised.value.least == pytest.approx(math.sqrt(3e-6))


def test_a_layer_that_collapses_falls_back() -> None:
    costs = {name: {"4": 4, KEEP: 32} for name in "abc"}
    alone = {"a": {"4": 1e-6}, "b": {"4": math.inf}, "c": {"4": 0.25}}
    table = {name: own | {KEEP: 0.0} for name, own in alone.items()}

    def measure(formats: Mapping[str, str]) -> float:
        return math.sqrt(sum(table[name][form] for name, form in formats.items()))

    found = fit_to_limit(costs, table, Limit("drift", 0.01), measure)
    assert found.allocation.formats == {"a": "4", "b": KEEP, "c": KEEP}
    assert found.allocation.bytes == 68
