"""Odd uploads through the whole pipeline: what the user is told, and what comes out.

Annotations are evaluated here: torch.jit.script reads some of them as types.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import errors
from engine.pipeline import compress
from tests.engine.core.test_decisions import Chooses, Counter, Counts, Detector, Random, Settles
from tests.engine.core.test_odd_uploads import (
    Classes,
    ComplexWeights,
    HalfQuantized,
    Holding,
    Integers,
    Mirrored,
    Nothing,
    Silent,
    Sizes,
    Spoilt,
    Three,
    TwoInputs,
)
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune

ROWS = [{"shape": [4, 6]}]
ELEMENTS = prune(granularity="element")


def saved(model: nn.Module, folder: Path) -> Path:
    return save_scripted(model.eval(), folder / "model.pt")


@pytest.fixture
def refused(make_job, tmp_path):
    def refused(kind: Any, model: nn.Module, inputs: Any = ROWS, stage: Any = None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized and sparse tensors announce changes
            path = saved(model, tmp_path)
            job = make_job(path, {"inputs": inputs, "stages": [stage or prune()]})
            with pytest.raises(errors.EngineError) as caught:
                compress(job, Recorder())
        assert type(caught.value) is kind
        assert caught.value.title
        assert caught.value.hint
        assert caught.value.where
        assert {file.name for file in job.workdir.iterdir()} <= {"checkpoint.pt"}
        return caught.value

    return refused


@pytest.fixture
def carried_out(run, tmp_path):
    def carried_out(model: nn.Module, inputs: Any = ROWS, stage: Any = None) -> Any:
        path = saved(model, tmp_path)
        done = run(path, {"inputs": inputs, "stages": [stage or prune()]})
        assert done.result.report.certificate.passed
        return done

    return carried_out


@pytest.mark.parametrize(
    ("model", "kind", "where", "says"),
    [
        (
            lambda: Holding(torch.eye(4).to_sparse()),
            errors.UnsupportedOperator,
            "table",
            "the buffer `table` is a sparse tensor",
        ),
        (
            lambda: HalfQuantized(static=False),
            errors.UnsupportedOperator,
            "certificate",
            "quantized::linear_dynamic",
        ),
        (Counts, errors.UnsupportedOperator, "test_decisions.py", "more than 20,000 rounds"),
        (
            lambda: Spoilt(float("nan")),
            errors.WeightsNotNumbers,
            "a.weight",
            "the weight `a.weight` holds NaN",
        ),
        (Nothing, errors.NothingPruned, "recipe.stages.0.allocation", "no weights"),
        (Integers, errors.NothingPruned, "recipe.stages.0.allocation", "no weights"),
    ],
)
def test_refusals_name_what_is_odd(
    refused: Any, model: Any, kind: Any, where: str, says: str
) -> None:
    made = model()
    if isinstance(made, Counts):
        made.rounds = 10**5  # the upload itself runs once, to compare the engine's reading
    error = refused(kind, made)
    assert where in error.where
    assert says in f"{error.title} {error.hint}"


@pytest.mark.parametrize("model", [Nothing, Integers])
def test_without_weights_no_element_can_be_masked(refused: Any, model: Any) -> None:
    error = refused(errors.NothingPruned, model(), stage=ELEMENTS)
    assert error.where == "recipe.stages.0.exclude"
    assert error.title == "no weight can be masked"


@pytest.mark.parametrize(
    ("inputs", "where", "says"),
    [
        (ROWS, "recipe.inputs", "nothing is given for argument `y`"),
        ([*ROWS, *ROWS, *ROWS], "recipe.inputs.2", "argument `times` of forward is a int"),
        ([*ROWS, *ROWS, {"value": 3}, {"value": 4}], "recipe.inputs.3", "4 inputs are given"),
        ([*ROWS, {"value": 3}], "recipe.inputs.1", "argument `y` of forward is a Tensor"),
        ([*ROWS, {"shape": [4, 5]}], "recipe.inputs", "size of tensor a (6) must match"),
        ([{"shape": [4, 7]}, {"shape": [4, 7]}], "recipe.inputs", "cannot be multiplied"),
        ([{"shape": [6]}, {"shape": [2, 2]}], "recipe.inputs", "must match"),
        ([{"shape": [4, 6], "dtype": "int64"}] * 2, "recipe.inputs", "same dtype"),
    ],
)
def test_inputs_that_do_not_fit(refused: Any, inputs: Any, where: str, says: str) -> None:
    error = refused(errors.InputsDoNotFit, TwoInputs(), inputs)
    assert error.where == where
    assert says in error.title


class Shout(Three):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.abs().max() < 1000):
            raise ValueError("louder, please")
        return self.c(self.b(self.a(x)))


def test_a_model_that_raises_on_these_inputs_is_quoted(refused: Any) -> None:
    error = refused(errors.ModelRaised, Shout())
    assert error.title == "the model raised: louder, please"


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        (Random, "a", "random numbers are drawn for it"),
        (ComplexWeights, "a", "tied to something of fixed size (combined element by element)"),
        (Chooses, "a", "data decides whether another branch runs, which the example does not show"),
        (Settles, "a", "carried around a loop that runs until data says so"),
    ],
)
def test_frozen_regions_are_reported_with_their_reason(
    carried_out: Any, model: Any, layer: str, reason: str
) -> None:
    report = carried_out(model()).result.report
    assert reason in {item.reason for item in report.frozen if item.layer == layer}
    assert report.after.parameters < report.before.parameters


def test_a_custom_operator_that_the_fresh_process_lacks_is_an_error(refused: Any) -> None:
    error = refused(errors.CertificateFailed, Mirrored())
    assert "fails in a fresh process: RuntimeError: Unknown builtin op" in error.title
    assert "odd_uploads::mirror" in error.title


def test_a_detector_comes_out_with_boxes_of_its_own_number(carried_out: Any) -> None:
    done = carried_out(Detector())
    compact = torch.jit.load(done.folder / "compact.pt")
    for seed in range(5):
        torch.manual_seed(seed)
        assert compact(torch.randn(3 + seed, 6)).shape == (3 + seed, 3)


def test_a_counter_starts_where_the_upload_left_it(carried_out: Any) -> None:
    done = carried_out(Counter())
    compact = torch.jit.load(done.folder / "compact.pt")
    assert float(compact.calls) == 0.0
    assert torch.equal(compact.mean, torch.zeros(4))


@pytest.mark.parametrize("model", [Silent, Classes])
def test_silent_outputs_are_said_so_in_the_verdict(carried_out: Any, model: Any) -> None:
    report = carried_out(model()).result.report
    assert "all inner tensors were compared" in report.certificate.detail
    assert report.certificate.detail in report.verdict.warnings


class Words(Three):
    def forward(self, x: Tensor) -> str:
        scores = self.c(self.b(self.a(x)).relu())
        return "warm" if bool(scores.sum() > 0) else "cold"


class Whole(Three):
    def forward(self, x: Tensor) -> int:
        return int(self.c(self.b(self.a(x)).relu()).abs().sum() * 1000)


@pytest.mark.parametrize("model", [Words, Whole, Sizes])
def test_outputs_and_weights_of_any_kind(carried_out: Any, model: Any) -> None:
    report = carried_out(model()).result.report
    assert report.after.parameters < report.before.parameters


def test_elements_among_nan_cannot_be_ranked(refused: Any) -> None:
    error = refused(errors.WeightsNotNumbers, Spoilt(float("nan")), stage=ELEMENTS)
    assert error.where == "a.weight"
    assert "the weight `a.weight` holds NaN" in error.title


def test_elements_beside_an_infinite_weight_can_be_masked(carried_out: Any) -> None:
    done = carried_out(Spoilt(float("inf")), stage=ELEMENTS)
    report = done.result.report
    assert report.after.nonzero_parameters < report.before.nonzero_parameters
