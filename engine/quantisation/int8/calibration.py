"""The ranges of a program's places, from data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import DatasetInvalid
from engine.quantisation.int8.observers import Observer, Watch, watch
from engine.quantisation.int8.ranges import Ranges
from engine.structure import tensors_in
from engine.torchscript.instructions import Instruction
from engine.torchscript.int8.static import Plan
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.program import Program


@torch.no_grad()
def calibrate(
    prepared: Program,
    plan: Plan,
    batches: Iterable[Sequence[Any]],
    *,
    observer: Observer = "histogram",
    percentile: float = 99.99,
) -> Ranges:
    """Run a prepared program on data and find the range of each place.

    Args:
        prepared: see `engine.torchscript.int8.preparing`.
        plan: its places.
        batches: arguments of forward.
        observer: how a range is chosen (see `engine.quantisation.int8.observers`).
        percentile: for the observer of that name.

    Returns:
        The ranges; a place that no batch reached, or where values are not float32, has none.

    Raises:
        DatasetInvalid: there is no batch, or values are NaN or infinite, naming where.
    """
    seen = _Seen(plan, {name: watch(observer, percentile) for name in plan.places})
    count = 0
    for count, batch in enumerate(batches, start=1):
        for number, tensor in enumerate(tensors_in(batch)):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise DatasetInvalid(
                    f"calibration data is NaN or infinite: batch {count - 1}, input {number}",
                    hint="remove or repair the samples; one such value would make every range "
                    "useless",
                    where=f"inputs.{number}",
                )
        Interpreter(prepared, seen).run(list(batch))
    if not count:
        raise DatasetInvalid(
            "static quantisation needs data to calibrate on, and there is none",
            hint="give the job a dataset, or choose `dynamic_int8`, which needs none",
            where="dataset",
        )
    found = {name: one.range() for name, one in seen.watches.items()}
    return {name: given for name, given in found.items() if given is not None}


class _Seen(PlainVisitor):
    def __init__(self, plan: Plan, watches: Mapping[str, Watch]) -> None:
        self.watches = watches
        self._results: dict[int, str] = {}
        self._operands: dict[int, list[tuple[int, str]]] = {}
        for name, place in plan.places.items():
            if place.position is None:
                self._results[place.instruction] = name
            else:
                self._operands.setdefault(place.instruction, []).append((place.position, name))

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """Run it, and look at what it reads and gives."""
        for position, name in self._operands.get(instruction.index, ()):
            listed = position >= len(arguments)
            found = arguments[0][position - len(arguments)] if listed else arguments[position]
            self._see(name, found)
        result = super().operator(instruction, arguments)
        name = self._results.get(instruction.index, "")
        if name:
            self._see(name, result)
        return result

    def _see(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return
        if not bool(value.isfinite().all()):
            raise DatasetInvalid(
                f"values at `{name}` are NaN or infinite on the calibration data",
                hint="the model overflows on this data; check its scaling, or exclude the layer",
                where=name,
            )
        self.watches[name].see(value)
