"""Training with the rounding of static int8: what is trained is what the file computes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.quantisation.int8.calibration import calibrate
from engine.quantisation.int8.lowerings import StaticInt8
from engine.quantisation.int8.training import Int8Training
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.static import plan_static
from engine.training.finetune import train
from tests.engine.training.test_epoch import resumed_everywhere
from tests.engine.training.test_finetune import Observer, make_program, options, run_of, splits


@pytest.fixture
def calibrated(tmp_path):
    program = train(make_program(tmp_path / "m.pt"), run_of(options(epochs=2)), Observer()).program
    ready = prepared(program)
    images = splits()[0].inputs[0]
    ranges = calibrate(ready, plan_static(ready), [[images]], observer="min_max")
    return program, StaticInt8(ranges)


def training_of(calibrated, **settings):
    begun = Int8Training.of(*calibrated)
    run = run_of(options(optimizer={"lr": 0.002}, **settings))
    return begun, dataclasses.replace(run, reparametrised=begun.rules)


def test_the_file_computes_what_training_saw(calibrated):
    begun, run = training_of(calibrated, epochs=2)
    assert set(begun.rules) == {"conv.weight", "linear.weight"}
    trained = train(begun.program, run, Observer()).program
    plain, lowering = begun.finished(trained)
    assert lowering.ranges.keys() == calibrated[1].ranges.keys()
    assert lowering.ranges != calibrated[1].ranges
    images = splits()[1].inputs[0]
    seen = trained.run([images])
    computed = lowering.lower(plain).run([images])
    step = max(one.scale for one in lowering.ranges.values())
    # Sums of integers may fall on the other side of a rounding: a step here and there.
    assert float((seen - computed).abs().max()) <= 3 * step
    assert float((seen.argmax(1) == computed.argmax(1)).double().mean()) > 0.99
    # Rounded weights are rounded already.
    for name, weight in plain.parameters().items():
        if name in begun.rules:
            most = weight.flatten(1).abs().amax(1)
            steps = weight.flatten(1) / (most / 127)[:, None]
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "every", [7, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
def test_resumed(calibrated, every):
    begun, run = training_of(calibrated, epochs=2, batch_size=16, ema={"decay": 0.9})
    resumed_everywhere(begun.program, run, every)
