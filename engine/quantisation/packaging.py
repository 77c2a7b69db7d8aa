"""The file's program: stored tensors take the place of weights, and stock operators decode them.

at_use: the weight `<name>` is gone. Its parts are buffers beside it, `<name>_stored.packed` and so
on by the names of the encoding's parts. Every method that read the weight decodes it: once a run,
before the first operator that needs it (see `engine.torchscript.decoders`). Memory between runs is
that of the file; each run pays for decoding.

at_load: the file has the parts, and what `torch.jit.load` gives has the weight, under its name, as
a parameter: loading pays for decoding, once, and memory and speed are those of the dense program
(see `engine.torchscript.stored_state`). Only where a module holds weights beside submodules, or is
the program itself, does the weight move, to `<name>_stored.weight`.

A weight that several modules share is stored once. At load the names behind its first are given
up, and what read them reads the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from engine.quantisation.encoding import Encoding
from engine.torchscript.program import Program, memory_of
from engine.torchscript.stored_weights import (
    StoredWeight,
    decoded_at_load,
    decoded_at_use,
    stores_weights,
)

Decode = Literal["at_load", "at_use"]

FILE_OVERHEAD: Mapping[Decode, int] = {"at_use": 1_600, "at_load": 2_300}
"""Bytes that a stored weight adds to the file besides its tensors: its decoder, a class, entries of
the archive. Measured with torch 2.13 on files of 2 and of 12 layers: 1,500 and 2,250 for a layer
unlike the others. Scripted layers of one shape share a class, and then it is 620 and 480."""


def bigger(encoding: Encoding, decode: Decode) -> str:
    """Why storing a weight so would make the file bigger; empty where it makes it smaller.

    Args:
        encoding: of the weight, with its scales and tables.
        decode: when it is decoded.
    """
    dense = torch.Size(encoding.shape).numel() * encoding.dtype.itemsize
    stored = encoding.stored_bytes
    if stored + FILE_OVERHEAD[decode] < dense:
        return ""
    return (
        f"in {encoding.bits:.3g} bits ({encoding.scheme}) it would take {stored:,} bytes with its "
        f"scales and tables and up to {FILE_OVERHEAD[decode]:,} for its decoder, and it takes "
        f"{dense:,} as it is"
    )


def packaged(program: Program, encodings: Mapping[str, Encoding], *, decode: Decode) -> Program:
    """What is written to the file; its weights are those of the program, to the bit.

    Where some weights are decoded at load and others at use, package those at use first.

    Args:
        program: whose weights have the values that decoding gives (copied into them in place, so
            that shared weights stay shared); it stays as it is.
        encodings: by name of the parameter; of a shared one, any of its names.
        decode: when the stored tensors become weights.

    Returns:
        A program to save or to run, over the same tensors where they are not stored.

    Raises:
        WeightCannotBeStored: the program uses a module with such a weight as a value.
        ValueError: a weight is not what its encoding decodes to, or has been packaged already.
    """
    fresh = program.copy(share=True)
    if stores_weights(fresh):
        raise ValueError("weights that are decoded at load are packaged last, and once")
    held = fresh.attributes()
    for name, encoding in encodings.items():
        if not torch.equal(encoding.decode().to(held[name].device), held[name]):
            raise ValueError(f"`{name}` is not what its encoding decodes to")
    names = _names(held, encodings)
    weights = [
        StoredWeight(
            names[name],
            {part: tensor.to(fresh.device) for part, tensor in encoding.parts.items()},
            encoding.decoder,
        )
        for name, encoding in encodings.items()
    ]
    return (decoded_at_use if decode == "at_use" else decoded_at_load)(fresh, weights)


def _names(
    held: Mapping[str, Tensor], encodings: Mapping[str, Encoding]
) -> dict[str, tuple[str, ...]]:
    """All names of the memory of each encoded weight, its own first."""
    by_memory = defaultdict(list)
    for name, tensor in held.items():
        by_memory[memory_of(tensor)].append(name)
    found: dict[str, tuple[str, ...]] = {}
    for name in encodings:
        others = by_memory[memory_of(held[name])]
        found[name] = (name, *(other for other in others if other != name))
    return found
