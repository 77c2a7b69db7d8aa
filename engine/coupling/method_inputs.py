"""Inputs of exported methods, which an example does not hold: it is for forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.calling import copies
from engine.torchscript.arguments import arguments_of_method
from engine.torchscript.joint import JointProgram
from engine.torchscript.program import Program

CALLED = "what forward gives it"
PASSED = "the inputs of forward, to which it hands them on"
OWN = "the inputs of forward"
NOTHING = "a call without inputs"
"""Sources of a method's inputs; any other source is the name of a method that gives them."""


class MethodInputs:
    """Inputs of methods, for one set of inputs of forward.

    Args:
        program: forward and the methods are run where their results are inputs.
        inputs: positional arguments of forward.
    """

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self._program = program
        self._inputs = inputs
        self._called: dict[str, list[Any]] | None = None
        self._given: dict[str, list[Any]] = {}

    def called(self) -> dict[str, list[Any]]:
        """What forward gives the methods that it calls.

        Raises:
            RuntimeError, torch.jit.Error: forward fails on its inputs.
        """
        if self._called is None:
            calls = self._program.calls
            self._called = {} if calls is None else calls.arguments(self._inputs)
        return self._called

    def of_forward(self) -> list[Any]:
        """With the defaults of those that are left out."""
        taken = arguments_of_method(self._program, "forward")
        return [*self._inputs, *(item.default for item in taken[len(self._inputs) :])]

    def of(self, method: str, source: str) -> list[Any]:
        """Arguments of a method from a source: one of the fixed ones, or another method."""
        if method not in self._given:
            self._given[method] = self._found(method, source)
        return copies(self._given[method])

    def forget(self, method: str) -> None:
        """Its arguments were no good."""
        self._given.pop(method, None)

    def _found(self, method: str, source: str) -> list[Any]:
        if source == NOTHING:
            return []
        if source == CALLED:
            return self.called()[method]
        if source in {PASSED, OWN}:
            return self.of_forward()
        result = run_method(self._program, source, self._given[source])
        return list(result) if isinstance(result, tuple) else [result]


@torch.no_grad()
def run_method(program: Program, method: str, arguments: Sequence[Any]) -> Any:
    """Outputs of a method by the TorchScript runtime."""
    return JointProgram(program, [method]).run(arguments)[0]
