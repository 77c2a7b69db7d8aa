"""A network of every family: half of it goes, and what is left computes the same."""

from __future__ import annotations

import io

import pytest
import torch

from engine.certify import relative_error
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from tests.engine.core.programs import halve, parameter_count, scripted, traced
from tests.zoo.families import FAMILIES


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_of_a_network_of_each_family_goes(name: str, form: str) -> None:
    make, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = make()
    program = traced(model, inputs) if form == "traced" else scripted(model)
    compacted, certificate, coupling = halve(program, inputs)

    assert certificate.passed, certificate
    assert certificate.batch_sizes == [1, 3]
    if certificate.kind == "approximate":
        assert certificate.mixed_by
        assert certificate.restricted_error is not None
        assert certificate.restricted_error < 1e-12
    lost = 1 - parameter_count(compacted) / parameter_count(program)
    assert lost > 0.3, [(item.layer, item.reason, item.channels) for item in coupling.frozen]

    # What was saved, loaded by torch alone, and run again: by its runtime and step by step.
    buffer = io.BytesIO(compacted.to_bytes())
    loaded = torch.jit.load(buffer)
    expected = compacted.run(inputs)
    with torch.no_grad():
        assert relative_error(expected, loaded(*inputs)) < 1e-5
        stepped = Interpreter(compacted, PlainVisitor()).run(inputs)
    assert relative_error(expected, stepped) < 1e-5
    assert loaded(*inputs).shape == model.eval()(*inputs).shape
