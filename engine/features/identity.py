"""Values of two runs that are the same computation, whatever their sizes.

A pruned program computes what the upload computes, over fewer channels. So a value is named by how
it comes about: the operator, the names of the values and weights that it reads, and which of the
operator's outputs it is, hashed (Merkle 1987, "A digital signature based on a conventional
encryption function"). Numbers are left out, for they change with the channels. Names of weights
stay when a program is pruned, saved and loaded, so equal names mean the same computation on the
same layers.

Where a residual branch was removed, x + f(x) became x. Its weights, which the pruned program no
longer reads, are *gone*; a value that needs one is gone too, except that a sum of which one side
is gone is the other side. Copies are what they copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from engine.tape import Tape, TensorValue, flatten

Key = bytes
_COPIES = frozenset({"aten::clone", "aten::detach"})


def value_keys(tape: Tape, gone: Collection[str] = ()) -> list[list[Key | None]]:
    """For every step the keys of its outputs, flattened; None where a weight behind one is gone.

    Args:
        tape: of a run.
        gone: canonical names of weights that the other run does not read.
    """
    now: dict[int, Key | None] = {
        value.number: _hashed("input", str(position)) for position, value in enumerate(tape.inputs)
    }
    keys: list[list[Key | None]] = []
    for step in tape.steps:
        read = [_key_of(value, now, gone) for value in step.tensors()]
        made = [_made(step.kind, read, place) for place, _ in enumerate(flatten(step.outputs))]
        # What is written in place is another value from here on.
        now.update(
            (value.number, key) for value, key in zip(flatten(step.outputs), made, strict=True)
        )
        keys.append(made)
    return keys


def _key_of(value: TensorValue, now: dict[int, Key | None], gone: Collection[str]) -> Key | None:
    if value.number in now:
        return now[value.number]
    if value.name is None:
        return _hashed("made")
    if value.name in gone:
        return None
    # A baked tensor's name is its place, which moves when the program is saved.
    return _hashed("constant" if value.name.startswith("constant:") else value.name)


def _made(kind: str, read: list[Key | None], place: int) -> Key | None:
    if kind in _COPIES and read:
        return read[0]
    if kind == "aten::copy" and len(read) > 1:
        return read[1]
    if kind == "aten::add" and len(read) == 2 and (read[0] is None) != (read[1] is None):
        return read[0] or read[1]
    if any(key is None for key in read):
        return None
    return _hashed(kind, str(place), *(key.hex() for key in read if key is not None))


def _hashed(*parts: str) -> Key:
    return hashlib.sha256("\n".join(parts).encode()).digest()
