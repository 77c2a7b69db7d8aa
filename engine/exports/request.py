"""What a format is given to write, and what it says of what it wrote.

A format is a module with one function, `write(request: ExportRequest) -> Exported`. It runs in a
process of its own (see `engine.exports.process`), so a converter that crashes or hangs takes
nothing along. It writes below `request.folder`, has the file run or read by something else than
what wrote it, in a fresh process where that is possible (`engine.exports.fresh`), and says how far
the outputs are from those of TorchScript. Whether that is near enough is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.certify import batch_sizes
from engine.errors import EngineError
from engine.structure import at_batch_size, map_tensors, samples_in
from engine.torchscript.precision import comparison_tolerance
from engine.torchscript.program import Program


class ExportFailed(EngineError):
    """A format cannot hold this model, or its file does not compute the same."""

    type = "export-failed"


@dataclass(frozen=True)
class Case:
    """A call of the model, and what TorchScript gives.

    Attributes:
        inputs: positional arguments, on the CPU.
        expected: outputs of the TorchScript file, tuples in the place of named ones.
    """

    inputs: tuple[Any, ...]
    expected: Any

    @property
    def batch_size(self) -> int:
        """Samples."""
        return samples_in(self.inputs)


@dataclass(frozen=True)
class ExportRequest:
    """One format to write.

    Attributes:
        format: its name in the recipe.
        options: of the recipe's entry, by name.
        model: the TorchScript file as it is delivered; it loads on a CPU.
        folder: empty, for everything the format writes.
        inputs: example arguments of forward, on the CPU.
        seconds: after which the process is ended; a verification may take no longer.
        program_file: TorchScript file of the same model with all weights in floating point, where
            `model` stores some of them encoded; None where it stores none.
        encodings: how weights are stored, by qualified name (`Encoding.to_plain`), for formats
            that have such weights of their own.
        lowering: how the model computes in fewer bits (`Lowering.to_plain`), for formats that have
            such operators; None where it computes in floating point. `model` computes that way,
            `program_file` does not.
    """

    format: str
    options: Mapping[str, Any]
    model: Path
    folder: Path
    inputs: tuple[Any, ...]
    seconds: float = 600.0
    program_file: Path | None = None
    encodings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lowering: Mapping[str, Any] | None = None

    @cached_property
    def program(self) -> Program:
        """The model as the engine reads it, weights in floating point; its graph may be edited."""
        return Program.load(self.program_file or self.model)

    @cached_property
    def delivered(self) -> Program:
        """The TorchScript file exactly as it is."""
        return Program.as_uploaded(self.model)

    @cached_property
    def tolerance(self) -> float:
        """How far another runtime may be off, relative to the largest output."""
        return comparison_tolerance(self.delivered)

    def expected(self, inputs: Sequence[Any]) -> Any:
        """What the TorchScript file computes.

        Raises:
            EngineError: it does not accept the inputs.
        """
        with torch.no_grad(), plain_execution():
            torch.manual_seed(0)
            # Containers of this process: a file of tensors knows no named tuples.
            return map_tensors(call(self.delivered.module, inputs, where="inputs"), Tensor.detach)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The example, and another number of samples where TorchScript takes one."""
        cases = [Case(self.inputs, self.expected(self.inputs))]
        others = _with_noise(at_batch_size(self.inputs, batch_sizes(self.inputs)[1]))
        # Where the upload took its sizes for constants, it has one batch size itself.
        with suppress(EngineError):
            cases.append(Case(others, self.expected(others)))
        return tuple(cases)


@dataclass(frozen=True)
class Exported:
    """A format, written and run.

    Attributes:
        path: a file below the request's folder, or a folder, which is delivered as a zip.
        verified_by: what ran or read it, with its version, such as `onnxruntime 1.20.0 on CPU`.
        relative_error: largest difference from TorchScript over its largest output, over all
            cases; infinite where outputs do not compare.
        tolerance: that it must not exceed.
        batch_sizes: that were run; empty where nothing runs.
        any_batch: whether the file takes any number of samples; None where nothing runs.
        notes: what a user of the file should know.
    """

    path: Path
    verified_by: str
    relative_error: float
    tolerance: float
    batch_sizes: tuple[int, ...] = ()
    any_batch: bool | None = None
    notes: tuple[str, ...] = ()


def _with_noise(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Floats a little changed, so that samples which were repeated differ."""
    generator = torch.Generator().manual_seed(0)

    def changed(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        noise = 0.1 * torch.randn(value.shape, generator=generator)
        return (value.float() + noise).to(value.dtype)

    return tuple(map_tensors(value, changed) for value in inputs)
