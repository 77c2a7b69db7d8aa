"""Formats chosen by measured sensitivity, on small networks where every choice can be tried."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.data.splits import Split
from engine.quantisation.bit_allocation import Budget
from engine.quantisation.encoding import Encoding
from engine.quantisation.half import to_half
from engine.quantisation.mixed_precision import (
    BudgetOutOfReach,
    Candidates,
    candidates,
    choose_formats,
)
from engine.quantisation.sensitivity import KEEP, Limit, Quantity, build_from
from engine.quantisation.weight_only import encode_weight_only
from engine.scan.layers import forward_of
from engine.scan.measuring import Judge
from engine.torchscript.program import Program


class Net(nn.Module):
    """Three layers, of which the middle one hardly matters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 24)
        self.middle = nn.Linear(24, 24)
        self.last = nn.Linear(24, 4)
        with torch.no_grad():
            self.middle.weight.mul_(0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x + self.middle(x).tanh())


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Program(torch.jit.script(Net().eval()), "cpu")


@pytest.fixture(scope="module")
def split(program: Program) -> Split:
    torch.manual_seed(1)
    inputs = torch.randn(64, 16)
    with torch.no_grad():
        targets = program.run([inputs]).argmax(-1)
    return Split(
        name="validation",
        inputs=(inputs,),
        input_names=("validation/inputs/0",),
        targets=targets,
        target_name="validation/targets/0",
    )


def encode(name: str, weight: Tensor, form: str) -> Encoding | str:
    if form == "float16":
        return to_half(name, weight, "fp16")
    width: Any = int(form)
    return encode_weight_only(weight, bits=width, group_size=None, name=name)


FORMATS = ["8", "4", "2", "float16", KEEP]


@pytest.fixture(scope="module")
def offered(program: Program) -> Candidates:
    matrices = {n: w.detach() for n, w in program.parameters().items() if w.dim() > 1}
    return candidates(matrices, FORMATS, encode)


@pytest.fixture(scope="module")
def judges(program: Program, split: Split):
    def judge(quantity: Quantity) -> Judge:
        return Judge(forward_of(program), split, quantity=quantity, batch_size=64)

    return judge


def drift_of(program, offered, judges, formats) -> float:
    return judges("drift").measure(build_from(program, offered.encodings)(formats)).drift


def test_forms_that_are_no_smaller_are_not_offered() -> None:
    weights = {"wide": torch.randn(2, 64), "narrow": torch.randn(30, 1)}
    found = candidates(weights, ["8", "4"], encode)
    assert set(found.encodings["wide"]) == {"8", "4"}
    # A scale for each weight: 1 byte of code and 2 of scale (and the offsets).
    assert found.encodings["narrow"].keys() <= {"8", "4", KEEP}
    tiny = candidates({"one": torch.randn(1, 1).half()}, ["8"], encode)
    assert list(tiny.encodings["one"]) == [KEEP]
    assert "it would take" in tiny.reasons["one"]
    assert found.whole == 4 * (128 + 30)
    assert found.bytes["wide"]["8"] == 128 + found.encodings["wide"]["8"].scale.nbytes + 2


def test_a_budget_of_bytes_is_kept_and_goes_where_it_matters(program, offered, judges) -> None:
    limit = 0.22 * offered.whole
    found = choose_formats(program, offered, judges, Budget("bytes", limit))
    assert found.allocation.bytes <= limit
    forms = found.allocation.formats
    order = ["2", "4", "8", "float16", KEEP]
    assert order.index(forms["middle.weight"]) < order.index(forms["last.weight"])
    # Errors of different weights are nearly uncorrelated: their squares add up.
    assert found.predicted == pytest.approx(found.measured, rel=0.2)
    assert found.measured == pytest.approx(drift_of(program, offered, judges, forms))
    # Of all choices within the budget hardly one is better when measured.
    fitting = [
        drift_of(program, offered, judges, dict(zip(forms, choice, strict=True)))
        for choice in product(["8", "4", "2"], repeat=3)
        if sum(offered.bytes[n][f] for n, f in zip(forms, choice, strict=True)) <= limit
    ]
    assert found.measured <= 1.1 * min(fitting)


def test_more_bytes_lose_no_more(program, offered, judges) -> None:
    predicted = [
        choose_formats(program, offered, judges, Budget("bytes", share * offered.whole)).predicted
        for share in (0.1, 0.15, 0.25, 0.5, 1.0)
    ]
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[-1] == 0.0


def test_a_budget_that_nothing_keeps_says_what_is_possible(program, offered, judges) -> None:
    smallest = sum(min(own.values()) for own in offered.bytes.values())
    with pytest.raises(BudgetOutOfReach, match=f"smallest possible is {smallest:,}") as raised:
        choose_formats(program, offered, judges, Budget("bytes", smallest - 1), field="stages.0.x")
    assert raised.value.where == "stages.0.x"
    found = choose_formats(program, offered, judges, Budget("bytes", smallest))
    assert found.allocation.bytes == smallest


@pytest.mark.parametrize("most", [0.002, 0.02, 0.1])
def test_a_limit_on_the_drift_is_kept_when_measured(program, offered, judges, most) -> None:
    found = choose_formats(program, offered, judges, Limit("drift", most))
    assert found.lost == found.measured <= most
    assert found.lost == pytest.approx(drift_of(program, offered, judges, found.allocation.formats))
    # Nothing that is clearly smaller keeps it too.
    names = list(offered.encodings)
    for choice in product(FORMATS, repeat=3):
        formats = dict(zip(names, choice, strict=True))
        size = sum(offered.bytes[n][f] for n, f in formats.items())
        if size < 0.8 * found.allocation.bytes:
            assert drift_of(program, offered, judges, formats) > 0.9 * most


def test_a_limit_on_accuracy_counts_answers(program, offered, judges) -> None:
    found = choose_formats(program, offered, judges, Limit("accuracy", 1 / 64))
    build = build_from(program, offered.encodings)
    right = judges("accuracy").measure(build(found.allocation.formats)).accuracy.correct
    assert right >= 63
    assert found.lost == pytest.approx(1 - right / 64)
    strict = choose_formats(program, offered, judges, Limit("accuracy", 0.0))
    assert strict.allocation.bytes >= found.allocation.bytes
    assert strict.lost == 0.0


def test_sensitivities_may_be_losses(program, offered, judges) -> None:
    found = choose_formats(program, offered, judges, Limit("loss", 0.05), by="loss")
    assert found.lost <= 0.05
    assert found.sensitivities["last.weight"]["2"] > found.sensitivities["last.weight"]["8"]
    assert all(value >= 0 for own in found.sensitivities.values() for value in own.values())


def test_a_limit_below_the_finest_format_is_out_of_reach(program, judges) -> None:
    matrices = {n: w.detach() for n, w in program.parameters().items() if w.dim() > 1}
    coarse = candidates(matrices, ["4", "2"], encode)
    with pytest.raises(BudgetOutOfReach, match="still lose") as raised:
        choose_formats(program, coarse, judges, Limit("drift", 1e-4), field="budget.max_drift")
    assert raised.value.where == "budget.max_drift"
    assert "`keep`" in raised.value.hint


def test_a_collapsing_layer_falls_back_and_the_others_do_not(program, judges) -> None:
    matrices = {n: w.detach() for n, w in program.parameters().items() if w.dim() > 1}
    single = candidates(matrices, ["2", KEEP], encode)
    found = choose_formats(program, single, judges, Limit("drift", 0.2))
    assert found.allocation.formats["middle.weight"] == "2"
    assert KEEP in found.allocation.formats.values()
