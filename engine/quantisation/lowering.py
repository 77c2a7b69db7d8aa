"""Arithmetic in fewer bits: how a program is rewritten when its file is made.

Encodings store weights smaller and leave the arithmetic alone, so a program in floating point
stands for the file exactly. A lowering replaces operators: what it makes computes other numbers, so
it is what gets measured and verified, while the program in floating point stays for everything that
counts parameters and products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.torchscript.program import Program


class Lowering(ABC):
    """One way to compute in fewer bits, with all that it needs beside the program."""

    scheme: ClassVar[str]

    @abstractmethod
    def lower(self, program: Program) -> Program:
        """The program that is written to the file, on the CPU.

        Args:
            program: in floating point, on the CPU; it is left as it is.

        Raises:
            EngineError: it cannot be made, naming the operator or layer.
        """

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors, for checkpoints."""

    @classmethod
    @abstractmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Lowering:
        """The inverse of `to_plain`."""
