"""Int8 arithmetic as a job keeps it until its file is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.quantisation.int8.dynamic import on_cpu
from engine.quantisation.int8.ranges import ActivationRange, Ranges
from engine.quantisation.int8.result import Int8Result
from engine.quantisation.int8.static import lower_prepared
from engine.quantisation.lowering import Lowering
from engine.torchscript.int8.dynamic import lower_dynamic
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.program import Program


@dataclass(frozen=True)
class DynamicInt8(Lowering):
    """Inputs are quantised when a layer runs.

    Attributes:
        excluded: layers that stay in floating point.
    """

    excluded: tuple[str, ...] = ()

    scheme = "dynamic_int8"

    def result(self, program: Program) -> Int8Result:
        """The program in int8, and what became of each layer."""
        lowered, layers = lower_dynamic(prepared(on_cpu(program)), self.excluded)
        return Int8Result(lowered, tuple(layers))

    def lower(self, program: Program) -> Program:
        """The program in int8."""
        return self.result(program).program

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for checkpoints."""
        return {"excluded": list(self.excluded)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> DynamicInt8:
        """The inverse of `to_plain`."""
        return cls(tuple(plain["excluded"]))


@dataclass(frozen=True)
class StaticInt8(Lowering):
    """Ranges of activations are known before.

    Attributes:
        ranges: by place of the prepared program.
        excluded: layers that stay in floating point.
    """

    ranges: Ranges = field(default_factory=dict)
    excluded: tuple[str, ...] = ()

    scheme = "static_int8"

    def result(self, program: Program) -> Int8Result:
        """The program in int8, and what became of each layer."""
        return lower_prepared(prepared(on_cpu(program)), self.ranges, self.excluded)

    def lower(self, program: Program) -> Program:
        """The program in int8."""
        return self.result(program).program

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for checkpoints."""
        return {
            "ranges": {place: given.to_plain() for place, given in self.ranges.items()},
            "excluded": list(self.excluded),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> StaticInt8:
        """The inverse of `to_plain`."""
        ranges = {
            place: ActivationRange.from_plain(given) for place, given in plain["ranges"].items()
        }
        return cls(ranges, tuple(plain["excluded"]))
