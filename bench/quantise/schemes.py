"""Ways to store weights, and the files they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.quantisation.codebook import codebook_of
from engine.quantisation.encoding import Encoding, Encodings
from engine.quantisation.packaging import Decode, bigger, packaged
from engine.quantisation.quantisable import quantisable
from engine.quantisation.sparse import encode_sparse
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Scheme:
    """One way to store a weight.

    Attributes:
        encode: stores a weight of a name.
        target: how many times smaller the file is to be; None where none is asked.
        left: share of the weights that is left before it, by magnitude.
    """

    encode: Callable[[str, Tensor], Encoding]
    target: float | None = None
    left: float = 1.0


def _sparse(name: str, weight: Tensor) -> Encoding:
    return encode_sparse(
        weight,
        encode=lambda values: encode_weight_only(values, bits=4, group_size=64, name=name),
        name=name,
    )


SCHEMES = {
    "8 bits, a scale a channel": Scheme(
        lambda name, weight: encode_weight_only(weight, bits=8, group_size=None, name=name), 3.8
    ),
    "4 bits, groups of 64": Scheme(
        lambda name, weight: encode_weight_only(weight, bits=4, group_size=64, name=name), 7.0
    ),
    "2 bits, groups of 64": Scheme(
        lambda name, weight: encode_weight_only(weight, bits=2, group_size=64, name=name)
    ),
    "1 bit, groups of 64": Scheme(
        lambda name, weight: encode_weight_only(weight, bits=1, group_size=64, name=name)
    ),
    "codebook of 16": Scheme(lambda name, weight: codebook_of(name, weight, size=16), 7.5),
    "a tenth left, 4 bits": Scheme(_sparse, left=0.1),
}


@torch.no_grad()
def stored(program: Program, scheme: Scheme, decode: Decode) -> tuple[Program, Program]:
    """The program with the values that decoding gives, and the program of its file."""
    rounded = program.copy()
    encodings: Encodings = {}
    for name, weight in quantisable(rounded)[0].items():
        if scheme.left < 1:
            kept = max(int(scheme.left * weight.numel()), 1)
            least = weight.abs().flatten().topk(kept).values[-1]
            weight.masked_fill_(weight.abs() < least, 0.0)
        encoding = scheme.encode(name, weight)
        if not bigger(encoding, decode):
            weight.copy_(encoding.decode())
            encodings[name] = encoding
    return rounded, packaged(rounded, encodings, decode=decode)
