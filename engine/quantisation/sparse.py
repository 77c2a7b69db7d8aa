"""Pruned weights stored as the places and values of what is left.

n weights of which k are not zero are stored in one of two ways, whichever takes fewer bytes:

    mask   a bit for each weight, and the k values
    gaps   for each value how many zeros lie before it, in w bits, and the values. A run of 2^w or
           more zeros holds values of zero, one behind each 2^w - 1 zeros, that stand for nothing
           else (Han et al. 2016, Deep Compression)

So values of t bits take n + k t bits or (k + f) (w + t), with f fillers; the second is smaller
where few weights are left. The values are floating point, or encoded themselves, as a row of k.
Every value has a place of its own, so decoding copies and never adds: the result is the same to the
bit on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from engine.errors import WeightsNotNumbers
from engine.quantisation.codebook import Codebook
from engine.quantisation.encoding import Encoding
from engine.quantisation.index_packing import WIDTHS, pack, unpack, unpack_source
from engine.quantisation.weight_only import WeightOnly

_ENCODINGS: dict[str, type[Encoding]] = {kind.scheme: kind for kind in (WeightOnly, Codebook)}

E = TypeVar("E", bound=Encoding)
EncodeValues = Callable[[Tensor], Encoding]
"""Stores values `[k]`, one or more, in fewer bits."""


@dataclass(frozen=True, eq=False)
class Sparse(Encoding):
    """Places and values of the weights that are left.

    Attributes:
        places: bits of the mask or gaps, packed, see `engine.quantisation.index_packing`.
        width: bits of a gap; 0 where `places` is a mask.
        values: `[k]` of the weight's dtype, or their encoding; in the order of the weights,
            fillers included.
    """

    places: Tensor
    width: int
    values: Tensor | Encoding

    scheme: ClassVar[str] = "sparse"

    @property
    def count(self) -> int:
        """How many values are stored, fillers included."""
        return int(self.values.shape[0])

    @property
    def parts(self) -> dict[str, Tensor]:
        """`places` and `values`, or `values_` and the name of each part of their encoding."""
        if isinstance(self.values, Tensor):
            return {"places": self.places, "values": self.values}
        inner = {f"values_{name}": part for name, part in self.values.parts.items()}
        return {"places": self.places, **inner}

    @property
    def packed_parts(self) -> dict[str, tuple[int, int]]:
        """Mask or gaps, and what the encoding of the values packs."""
        elements = torch.Size(self.shape).numel()
        parts = {"places": (self.count, self.width) if self.width else (elements, 1)}
        if isinstance(self.values, Encoding):
            inner = self.values.packed_parts
            parts |= {f"values_{name}": packed for name, packed in inner.items()}
        return parts

    @property
    def decoder(self) -> str:
        """Puts the values in their places among zeros."""
        names = list(self.parts)
        taken = ", ".join(f"{name}: Tensor" for name in names)
        source = ""
        values = "values"
        if isinstance(self.values, Encoding):
            source = self.values.decoder.replace("def decode(", "def decode_values(")
            values = f"decode_values({', '.join(names[1:])})"
        elements, shape = torch.Size(self.shape).numel(), list(self.shape)
        source += (
            f"def decode({taken}) -> Tensor:\n"
            f"    values = {values}\n"
            f"    weight = torch.zeros([{elements}], dtype={self.dtype}, device=values.device)\n"
        )
        if self.width:
            source += unpack_source(self.count, self.width, packed="places", numbers="gaps")
            source += (
                "    at = torch.cumsum(gaps.to(torch.int64) + 1, 0) - 1\n"
                f"    return weight.index_copy(0, at, values).view({shape})\n"
            )
        else:
            source += unpack_source(elements, 1, packed="places", numbers="kept")
            source += (
                "    kept = kept.to(torch.bool)\n"
                f"    return weight.masked_scatter(kept, values).view({shape})\n"
            )
        return source

    def decode(self) -> Tensor:
        """The weight, bit for bit what the decoder gives."""
        values = self.values if isinstance(self.values, Tensor) else self.values.decode()
        elements = torch.Size(self.shape).numel()
        weight = values.new_zeros(elements)
        if self.width:
            gaps = unpack(self.places, self.count, self.width)
            at = torch.cumsum(gaps.to(torch.int64) + 1, 0) - 1
            return weight.index_copy(0, at, values).view(self.shape)
        kept = unpack(self.places, elements, 1).to(torch.bool)
        return weight.masked_scatter(kept, values).view(self.shape)

    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors."""
        values: Any = self.values
        if isinstance(values, Encoding):
            values = {"scheme": values.scheme, **values.to_plain()}
        return {
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "places": self.places,
            "width": self.width,
            "values": values,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Sparse:
        """The inverse of `to_plain`."""
        values = plain["values"]
        if not isinstance(values, Tensor):
            values = _ENCODINGS[values["scheme"]].from_plain(values)
        return cls(
            tuple(plain["shape"]),
            getattr(torch, plain["dtype"]),
            plain["places"],
            plain["width"],
            values,
        )


@torch.no_grad()
def encode_sparse(weight: Tensor, *, encode: EncodeValues | None = None, name: str = "") -> Sparse:
    """Store a weight by what is left of it, in whichever form takes fewer bytes.

    Args:
        weight: floating point, of any shape; stays as it is.
        encode: stores the values in fewer bits; None keeps them as they are.
        name: of the weight, for errors.

    Raises:
        WeightsNotNumbers: the weight holds NaN or infinity.
        EngineError: what `encode` raises.
    """
    if not bool(torch.isfinite(weight).all()):
        called = f"the weight `{name}`" if name else "the weight"
        raise WeightsNotNumbers(
            f"{called} holds NaN or infinity",
            hint="upload a model that was trained to numbers, or `exclude` the layer",
            where=name,
        )
    flat = weight.detach().flatten()
    kept = flat != 0
    shape, dtype = tuple(weight.shape), weight.dtype
    best = Sparse(shape, dtype, pack(kept.to(torch.uint8), 1), 0, _stored(flat[kept], encode))
    for width in _widths(kept, best):
        gaps = _gaps(kept, width)
        values = flat[torch.cumsum(gaps + 1, 0) - 1]
        packed = pack(gaps.to(torch.uint8), width)
        by_gaps = Sparse(shape, dtype, packed, width, _stored(values, encode))
        # Not every encoding has a zero (one bit has none), and fillers need one.
        if not bool(by_gaps.decode().flatten()[~kept].any()):
            best = smallest(best, by_gaps)
    return best


def smallest(*encodings: E) -> E:
    """The encoding that takes the fewest bytes; of equals the first."""
    return min(encodings, key=lambda one: one.stored_bytes)


def _stored(values: Tensor, encode: EncodeValues | None) -> Tensor | Encoding:
    return values if encode is None or not len(values) else encode(values)


def _runs(kept: Tensor) -> Tensor:
    """How many zeros lie before each value: int64 `[k]`."""
    at = kept.nonzero().flatten()
    return at.diff(prepend=at.new_full((1,), -1)) - 1


def _widths(kept: Tensor, by_mask: Sparse) -> list[int]:
    """Bits of gaps that promise fewer bytes than the mask: the best, and the best without fillers.

    Args:
        kept: bool, one-dimensional.
        by_mask: the encoding by a mask, which tells what a value takes.
    """
    runs = _runs(kept)
    if not len(runs):
        return []
    of_value = (by_mask.stored_bytes - by_mask.places.numel()) * 8 / len(runs)
    entries = {width: len(runs) + int((runs >> width).sum()) for width in WIDTHS}
    promising = [
        width
        for width in sorted(WIDTHS, key=lambda one: entries[one] * (one + of_value))
        if entries[width] * (width + of_value) < by_mask.stored_bytes * 8
    ]
    without = [width for width in promising if entries[width] == len(runs)]
    return list(dict.fromkeys([*promising[:1], *without[:1]]))


def _gaps(kept: Tensor, width: int) -> Tensor:
    """Zeros before each value and each filler, at most `2 ** width - 1`: int64."""
    runs = _runs(kept)
    fillers = runs >> width
    entries = torch.cumsum(fillers + 1, 0)
    gaps = torch.full((int(entries[-1]),), 2**width - 1, device=kept.device)
    gaps[entries - 1] = runs - (fillers << width)
    return gaps
