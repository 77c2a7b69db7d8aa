"""The file a job hands out: its program, with quantised weights in their stored form."""

from __future__ import annotations

from pathlib import Path

from engine.measure.size import memory_bytes
from engine.quantisation.packaging import packaged
from engine.quantisation.quantised import Quantised
from engine.torchscript.program import Program


def deployed(program: Program, quantised: Quantised) -> Program:
    """The program that is written.

    Without a lowering it computes what `program` does, to the bit.

    Args:
        program: on the CPU; its weights already have the values that decoding gives.
        quantised: how they are stored.
    """
    at_use, at_load = quantised.at("at_use"), quantised.at("at_load")
    if at_use:
        program = packaged(program, at_use, decode="at_use")
    if at_load:
        program = packaged(program, at_load, decode="at_load")
    return program if quantised.lowering is None else quantised.lowering.lower(program)


def write_deployed(program: Program, quantised: Quantised, path: Path) -> None:
    """Write that program's file."""
    deployed(program, quantised).save(path)


def memory_deployed(program: Program, quantised: Quantised) -> int | None:
    """Bytes of its tensors in memory between runs; weights decoded at load are whole there.

    None for a lowered program: its packed weights lie in objects that do not tell their size.
    """
    if quantised.lowering is not None:
        return None
    held = program.attributes()
    saved = sum(
        held[name].numel() * held[name].element_size() - one.stored_bytes
        for name, one in quantised.at("at_use").items()
    )
    return memory_bytes(program) - saved
