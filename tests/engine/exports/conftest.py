from __future__ import annotations

import runpy
import sys

import pytest
import torch
from torch import nn

from engine.exports.request import ExportRequest
from tests.engine.digits import save_scripted
from tests.engine.exports.interfaces import made
from tests.engine.exports.models import Convolutional, Nested, Recurrent, Transformer

IDS = torch.arange(10).reshape(2, 5) % 11


def examples() -> dict[str, tuple[nn.Module, tuple]]:
    return {
        "cnn": (Convolutional(), (torch.randn(1, 1, 6, 6),)),
        "lstm": (Recurrent(), (IDS,)),
        "transformer": (Transformer(), (IDS,)),
        "nested": (
            Nested(),
            ({"a": torch.randn(2, 4), "b": torch.randn(2, 3)}, [torch.ones(2, 3)] * 2, 3),
        ),
    }


@pytest.fixture
def make(tmp_path):
    """A request for a model, or for one of the examples by name."""

    def request_of(model, inputs=(), **options) -> ExportRequest:
        if isinstance(model, str):
            model, inputs = examples()[model]
        folder = tmp_path / "made"
        folder.mkdir()
        saved = tmp_path / "compact.pt"
        if isinstance(model, torch.jit.ScriptModule):
            model.save(saved)
        else:
            save_scripted(model.eval(), saved)
        return ExportRequest("format", options, saved, folder, tuple(inputs))

    return request_of


@pytest.fixture
def asked(tmp_path):
    """A request for a format of a model of `interfaces`, or of one of the test's own."""

    def make(
        model: str | nn.Module, inputs: tuple = (), *, format: str = "any", **options
    ) -> ExportRequest:
        if isinstance(model, str):
            model, inputs = made(model)
        folder = tmp_path / "made"
        folder.mkdir()
        saved = save_scripted(model.eval(), tmp_path / "compact.pt")
        return ExportRequest(format, options, saved, folder, tuple(inputs), seconds=250)

    return make


@pytest.fixture
def checked_here(monkeypatch):
    """Scripts that check a file run in this process, which spares the start of another."""

    def run(script, *arguments, seconds):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
            runpy.run_path(str(script), run_name="__main__")

    return lambda module: monkeypatch.setattr(module, "run_fresh", run)
