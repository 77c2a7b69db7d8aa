"""Tries exported methods out: on what they run, and whether they can be followed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from engine.comparison import FAULTS
from engine.coupling.method_inputs import (
    CALLED,
    NOTHING,
    OWN,
    PASSED,
    MethodInputs,
    run_method,
)
from engine.errors import EngineError
from engine.structure import at_batch_size, samples_in
from engine.tape import Tape, record
from engine.torchscript.arguments import arguments_of_method
from engine.torchscript.dependence import attribute_paths, data_dependence, written_attributes
from engine.torchscript.instructions import Block, walk
from engine.torchscript.joint import JointProgram
from engine.torchscript.program import Program
from engine.torchscript.refusals import refuse_depth

_UNKNOWN = (
    "what it takes is not known: forward does not call it, and neither the inputs of forward nor "
    "what another method gives are of the types it takes"
)


class NotFollowed(Exception):
    """A method cannot be followed; the message says why, after `the method reads this, and`."""


class MethodProbe:
    """Tries methods out on a program and an example.

    Args:
        inputs: positional arguments of forward.

    Attributes:
        ready: forward runs on the example; otherwise nothing can be tried.
    """

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self._program = program
        batch = samples_in(inputs)
        self._examples = [MethodInputs(program, inputs)]
        other = MethodInputs(program, at_batch_size(inputs, batch + 1 if batch > 1 else 3))
        tape = self._forward(self._examples[0])
        self.ready = tape is not None
        if tape is not None:
            self._written = written_attributes(_reached(program, tape))
            if self._forward(other) is not None:
                self._examples.append(other)

    def _forward(self, example: MethodInputs) -> Tape | None:
        try:
            example.called()
            return record(self._program, example.of_forward())
        except (EngineError, *FAULTS):
            return None

    def source(self, method: str, known: Collection[str]) -> str:
        """Where a method's inputs come from.

        Args:
            known: methods that are understood already.

        Raises:
            NotFollowed: the method cannot be understood, or not yet.
        """
        self._look(method)
        refusal: NotFollowed | None = None
        for source in self._sources(method, known):
            try:
                for example in self._examples:
                    self._try(method, source, example)
            except (EngineError, KeyError, *FAULTS) as error:
                for example in self._examples:
                    example.forget(method)
                given = (
                    source if source in {CALLED, PASSED, OWN, NOTHING} else f"what `{source}` gives"
                )
                message = str(error).strip().splitlines()
                # Of several reasons the first: it is about the likeliest inputs.
                refusal = refusal or NotFollowed(
                    f"it does not run on {given}: {message[-1] if message else repr(error)}"
                )
            else:
                return source
        raise refusal or NotFollowed(_UNKNOWN)

    def _look(self, method: str) -> None:
        if method.startswith("__"):
            raise NotFollowed("Python calls it, not the user")
        try:
            refuse_depth(self._program.graph_of_method(method))
        except EngineError as error:
            raise NotFollowed(error.title) from error
        kinds = {item.kind for item in walk(self._program.method_block(method))}
        quantized = sorted(kind for kind in kinds if "quantize" in kind)
        if quantized:
            raise NotFollowed(f"it calls {', '.join(quantized)}")

    def _sources(self, method: str, known: Collection[str]) -> Iterator[str]:
        wanted = _types(self._program, method)
        if method in self._examples[0].called():
            yield CALLED
        elif not wanted:
            yield NOTHING
        elif self._program.calls is not None and method in self._program.calls.forwarding:
            yield PASSED
        else:
            if wanted == _types(self._program, "forward"):
                yield OWN
            yield from (other for other in known if _given(self._program, other) == wanted)

    def _try(self, method: str, source: str, example: MethodInputs) -> None:
        """Step by step and by the runtime; raises whatever goes wrong."""
        alone = JointProgram(self._program, [method])
        arguments = example.of(method, source)
        reached = _reached(alone, record(alone, arguments))
        written = written_attributes(reached)
        if written:
            raise NotFollowed(f"it writes to {_listed(written)}")
        changed = self._written.intersection(attribute_paths(reached).values())
        if changed:
            raise NotFollowed(f"it reads what forward writes: {_listed(changed)}")
        run_method(self._program, method, arguments)


def _reached(program: Program, tape: Tape) -> Block:
    """The program without the branches that only other sizes or attributes would take."""
    branches = set(tape.branches)
    data = data_dependence(program, branches, numbers=True).data

    def taken(block: Block) -> Block:
        instructions = []
        for item in block.instructions:
            blocks = item.blocks
            if item.kind == "prim::If" and item.inputs[0] not in data:
                blocks = tuple(
                    own for number, own in enumerate(blocks) if (item.index, 1 - number) in branches
                )
            instructions.append(replace(item, blocks=tuple(map(taken, blocks))))
        return replace(block, instructions=instructions)

    return taken(program.block)


def _types(program: Program, method: str) -> list[str]:
    return [item.type.annotation_str for item in arguments_of_method(program, method)]


def _given(program: Program, method: str) -> list[str]:
    """The types of what a method gives, a tuple's one by one."""
    (result,) = program.schema(method).returns
    kinds = result.type.elements() if result.type.kind() == "TupleType" else [result.type]
    return [kind.annotation_str for kind in kinds]


def _listed(paths: Collection[str]) -> str:
    return ", ".join(f"`{path}`" for path in sorted(paths))
