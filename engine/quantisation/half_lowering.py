"""Half precision as the way in which a job's file computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch

from engine.quantisation.half import HalfKind
from engine.quantisation.half_compute import HalfCompute, in_half
from engine.quantisation.lowering import Lowering
from engine.torchscript.program import Program


@dataclass(frozen=True)
class HalfLowering(Lowering):
    """What `engine.quantisation.half_compute` needs beside the program.

    Attributes:
        kind: the half type.
        interface: type of the outputs.
        exclude: names of the parameters that stay in float32.
        inputs: example arguments of forward, on the CPU.
    """

    kind: HalfKind
    interface: Literal["float32", "half"]
    exclude: tuple[str, ...]
    inputs: Sequence[Any]

    scheme: ClassVar[str] = "half"

    def convert(self, program: Program) -> HalfCompute:
        """The program in half precision, and what of it stayed in float32."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return in_half(
                program, self.inputs, self.kind, exclude=self.exclude, interface=self.interface
            )

    def lower(self, program: Program) -> Program:
        """The program in half precision."""
        return self.convert(program).program

    def to_plain(self) -> dict[str, Any]:
        """Plain data and the example."""
        return {
            "kind": self.kind,
            "interface": self.interface,
            "exclude": list(self.exclude),
            "inputs": list(self.inputs),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> HalfLowering:
        """The inverse of `to_plain`."""
        return cls(
            cast(HalfKind, plain["kind"]),
            plain["interface"],
            tuple(plain["exclude"]),
            plain["inputs"],
        )
