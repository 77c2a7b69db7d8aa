r"""Weights in 8, 4, 2 or 1 bits with a scale for each group; the arithmetic stays floating point.

Row r of a weight is its slice [r, ...], flattened. Every `group_size` weights of a row share a
scale s, the last group of a row may be shorter, and a weight w becomes a code c of b bits:

    asymmetric   c = floor(w / s + z + 1/2) in 0 .. m            m = 2^b - 1, w' = (c - z) s
    symmetric    c = round(w / s) + h       in 0 .. 2 h          h = 2^(b-1) - 1, w' = (c - h) s
    one bit      c = 1 where w >= 0, else 0                      w' = (2 c - 1) s

With l = min(0, min w) and u = max(0, max w) of a group, an asymmetric scale is (u - l) / m rounded
down to t bits, so that the range is m + d steps, and z = ceil(-l / s - d / 2 - 1/2). Both ends of
the range get the outermost codes: -l / s = z + e with d / 2 - 1/2 < e <= d / 2 + 1/2, so
floor(1/2 - e) <= 0 for l, and for u, at m + d - z - e steps, floor(m + d - e + 1/2) >= m. What is
decoded has the range m s, so it is encoded to the same codes, scales and z again. A symmetric
scale is max |w| / h, which gets the outermost code as well. One bit has s = mean |w|, the best for
the signs in squared error (Rastegari et al. 2016, XNOR-Net).

A weight moves by at most s (1 + d) / 2, with d <= m 2^(1-t): half a step, and 1/8 of one more at 8
bits with scales of 11 bits. Zero is always on the grid (c = z, c = h), and all-zero groups have
s = 0; one bit has no zero.

c - z is a small whole number and the only operation after it is one product, whose factors have at
most 8 and t bits: exact in float32 for the t = 11 bits of float16 and the 16 bits that are kept in
float32, so every runtime decodes to the same bits, fused or not. Scales are float16 where all of
them are in its normal range, else float32, else (weights near 1e-38) float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from engine.errors import WeightCannotBeStored, WeightsNotNumbers
from engine.quantisation.encoding import Encoding
from engine.quantisation.index_packing import pack, unpack, unpack_source

Bits = Literal[8, 4, 2, 1]
Clip = Literal["none", "mse"]

_SCALES = ((torch.float16, 11), (torch.float32, 16), (torch.float64, 45))
"""Types of scales, and to how many bits they are rounded."""
_PARTS = [1 - step / 20 for step in range(14)]
"""Parts of a group's range that `clip="mse"` tries: all of it down to 35 %."""
_AT_ONCE = 1 << 22
"""Weights that are encoded at a time, in float64."""


@dataclass(frozen=True, eq=False)
class WeightOnly(Encoding):
    """Codes of a few bits, and a scale for each group.

    Attributes:
        width: bits of a code: 8, 4, 2 or 1.
        group_size: weights of a row that share a scale.
        packed: the codes in the order of the weights, see `engine.quantisation.index_packing`.
        scale: `[rows, groups of a row]`, float16, float32 or float64.
        zero: codes of zero of the groups, packed like the codes; None where grids are symmetric.
    """

    width: int
    group_size: int
    packed: Tensor
    scale: Tensor
    zero: Tensor | None

    scheme: ClassVar[str] = "weight_only"

    @property
    def symmetric(self) -> bool:
        """Whether grids lie around zero."""
        return self.zero is None

    @property
    def parts(self) -> dict[str, Tensor]:
        """`packed`, `scale` and, for asymmetric grids, `zero`."""
        parts = {"packed": self.packed, "scale": self.scale}
        return parts if self.zero is None else parts | {"zero": self.zero}

    @property
    def packed_parts(self) -> dict[str, tuple[int, int]]:
        """Codes and offsets."""
        parts = {"packed": (self._elements, self.width)}
        if self.zero is not None:
            parts["zero"] = (self.scale.numel(), self.width)
        return parts

    @property
    def decoder(self) -> str:
        """Unpacks the codes, takes their zeros away and multiplies by the scales."""
        taken = ", ".join(f"{name}: Tensor" for name in self.parts)
        head = f"def decode({taken}) -> Tensor:\n"
        elements, (rows, groups), size = self._elements, self.scale.shape, self.group_size
        if not elements:
            return f"{head}    return scale.to({self.dtype}).new_zeros({list(self.shape)})\n"
        lines = unpack_source(elements, self.width, packed="packed", numbers="codes")
        columns, even = elements // rows, elements == rows * groups * size

        def spread(value: str) -> str:
            if even:
                return f"{value}.view({rows}, {groups}, 1)"
            whole = f"{value}.view({rows}, {groups}, 1).expand({rows}, {groups}, {size})"
            return f"{whole}.reshape({rows}, {groups * size}).narrow(1, 0, {columns})"

        shape = f"{rows}, {groups}, {size}" if even else f"{rows}, {columns}"
        lines += f"    levels = codes.view({shape}).to({self._computed})\n"
        if self.zero is not None:
            lines += unpack_source(rows * groups, self.width, packed="zero", numbers="zeros")
            lines += f"    levels = levels - {spread(f'zeros.to({self._computed})')}\n"
        elif self.width == 1:
            lines += "    levels = levels * 2 - 1\n"
        else:
            lines += f"    levels = levels - {_half(self.width)}\n"
        lines += f"    weight = levels * {spread(f'scale.to({self._computed})')}\n"
        cast = "" if self._computed == self.dtype else f".to({self.dtype})"
        return f"{head}{lines}    return weight.view({list(self.shape)}){cast}\n"

    def decode(self) -> Tensor:
        """The weight, bit for bit what the decoder gives."""
        if not self._elements:
            return self.scale.new_zeros(self.shape, dtype=self.dtype)
        rows, groups = self.scale.shape
        codes = unpack(self.packed, self._elements, self.width)
        levels = codes.view(rows, -1).to(self._computed)
        if self.zero is not None:
            levels = levels - self._spread(unpack(self.zero, rows * groups, self.width))
        elif self.width == 1:
            levels = levels * 2 - 1
        else:
            levels = levels - _half(self.width)
        return (levels * self._spread(self.scale)).view(self.shape).to(self.dtype)

    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "width": self.width,
            "group_size": self.group_size,
            "packed": self.packed,
            "scale": self.scale,
            "zero": self.zero,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> WeightOnly:
        """The inverse of `to_plain`."""
        return cls(
            tuple(plain["shape"]),
            getattr(torch, plain["dtype"]),
            plain["width"],
            plain["group_size"],
            plain["packed"],
            plain["scale"],
            plain["zero"],
        )

    @property
    def _elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def _computed(self) -> torch.dtype:
        """The type of the product."""
        wide = torch.float64 in (self.dtype, self.scale.dtype)
        return torch.float64 if wide else torch.float32

    def _spread(self, of_groups: Tensor) -> Tensor:
        """A value of each group for each of its weights."""
        rows, groups = self.scale.shape
        value = of_groups.to(self._computed).view(rows, groups, 1)
        whole = value.expand(rows, groups, self.group_size).reshape(rows, -1)
        return whole.narrow(1, 0, self._elements // rows)


@torch.no_grad()
def encode_weight_only(
    weight: Tensor,
    *,
    bits: Bits,
    group_size: int | None,
    symmetric: bool = False,
    clip: Clip = "none",
    keep_zeros: bool = False,
    name: str = "",
) -> WeightOnly:
    """Round a weight to grids of a few values; its new values are what the result decodes to.

    Args:
        weight: floating point, of any shape, with zero or more elements; stays as it is. One of
            fewer than 2 dimensions is a single row.
        bits: of a code.
        group_size: weights of a row that share a scale; None for whole rows.
        symmetric: grids around zero, which need no codes of zero. One bit always is.
        clip: `none` covers the range of each group; `mse` takes the part of it for which the sum
            of squared errors is smallest. One bit has its best scale already.
        keep_zeros: zeros must stay zero, as pruned weights do.
        name: of the weight, for errors.

    Raises:
        WeightsNotNumbers: the weight holds NaN or infinity.
        WeightCannotBeStored: one bit for a weight whose zeros must stay.
    """
    if group_size is not None and group_size < 1:
        raise ValueError(f"groups of {group_size} weights")
    _refuse(weight, bits, keep_zeros, name)
    rows = weight.shape[0] if weight.dim() > 1 else 1
    columns = weight.numel() // rows if rows else 0
    size = max(min(group_size or columns, columns), 1)
    groups = -(-columns // size)
    flat = weight.detach().reshape(rows, columns)
    at_once = max(_AT_ONCE // max(columns, 1), 1)
    chunks = [_Groups(flat[at : at + at_once], size) for at in range(0, rows, at_once)]
    form = _Form(bits, symmetric or bits == 1)
    exact = [_scales(chunk, form) for chunk in chunks]
    whole = torch.cat(exact) if exact else flat.new_zeros(0, groups, dtype=torch.float64)
    kind, precision = _type_for(whole)
    form = replace(form, precision=precision)
    codes, scales, zeros = [], [], []
    for chunk, scale in zip(chunks, exact, strict=True):
        grid = _grid(chunk, scale, form)
        if clip == "mse" and bits > 1:
            grid = _narrowed(chunk, scale, form, grid)
        codes.append(chunk.codes(*grid, form))
        scales.append(grid[0].to(kind))
        zeros.append(grid[1].to(torch.uint8).flatten())
    nothing = torch.zeros(0, dtype=torch.uint8, device=weight.device)
    return WeightOnly(
        tuple(weight.shape),
        weight.dtype,
        bits,
        size,
        pack(torch.cat([nothing, *codes]), bits),
        torch.cat(scales) if scales else whole.to(kind),
        pack(torch.cat([nothing, *zeros]), bits) if not form.symmetric else None,
    )


@dataclass(frozen=True)
class _Form:
    """Bits of a code, kind of grid, and bits to which scales are rounded."""

    bits: int
    symmetric: bool
    precision: int = 0


class _Groups:
    """Some rows in groups, with zeros behind the last of each row.

    Args:
        rows: `[rows, columns]`.
        size: of a group.
    """

    def __init__(self, rows: Tensor, size: int) -> None:
        self._columns = rows.shape[1]
        groups = -(-self._columns // size)
        filled = torch.nn.functional.pad(rows.double(), (0, groups * size - self._columns))
        self.weights = filled.view(len(rows), groups, size)
        counts = torch.full((groups,), float(size), dtype=torch.float64, device=rows.device)
        if groups:
            counts[-1] = self._columns - (groups - 1) * size
        self.counts = counts

    def codes(self, scale: Tensor, zero: Tensor, form: _Form) -> Tensor:
        """Codes of the weights in order, uint8."""
        found = _codes(self.weights, scale, zero, form)
        return found.to(torch.uint8).flatten(1).narrow(1, 0, self._columns).flatten()


def _refuse(weight: Tensor, bits: int, keep_zeros: bool, name: str) -> None:
    called = f"the weight `{name}`" if name else "the weight"
    if not bool(torch.isfinite(weight).all()):
        raise WeightsNotNumbers(
            f"{called} holds NaN or infinity, which no grid has",
            hint="upload a model that was trained to numbers, or `exclude` the layer",
            where=name,
        )
    if bits == 1 and keep_zeros and not bool(weight.all()):
        raise WeightCannotBeStored(
            f"{called} has pruned elements, and one bit is a sign: it has no zero",
            hint="store what is left of it as a sparse weight, choose 2 bits or more, or `exclude` "
            "the layer",
            where=name,
        )


def _half(bits: int) -> int:
    return int(2 ** (bits - 1)) - 1


def _scales(groups: _Groups, form: _Form) -> Tensor:
    """Scales before they are rounded: `[rows, groups]`."""
    weights = groups.weights
    if form.bits == 1:
        return weights.abs().sum(2) / groups.counts
    if form.symmetric:
        return weights.abs().amax(2) / _half(form.bits)
    levels = 2**form.bits - 1
    low, high = weights.amin(2).clamp(max=0), weights.amax(2).clamp(min=0)
    scale = (high - low) / levels
    return torch.where(torch.isinf(scale), high / levels - low / levels, scale)


def _type_for(scale: Tensor) -> tuple[torch.dtype, int]:
    """The smallest type that holds all scales, and to how many bits they are rounded."""
    used = scale[scale > 0]
    least, most = (float(used.min()), float(used.max())) if len(used) else (1.0, 1.0)
    for kind, precision in _SCALES:
        # The narrowest range that `mse` tries must fit too.
        if least * _PARTS[-1] >= torch.finfo(kind).tiny and most <= torch.finfo(kind).max / 2:
            return kind, precision
    return _SCALES[-1]


def _grid(groups: _Groups, scale: Tensor, form: _Form, part: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rounded scales and codes of zero for a part of each range: `[rows, groups]`, float64."""
    scale = scale * part
    mantissa, exponent = torch.frexp(scale)
    mantissa = mantissa * 2**form.precision
    mantissa = mantissa.round() if form.symmetric else mantissa.floor()
    rounded = torch.ldexp(mantissa / 2**form.precision, exponent)
    if form.symmetric:
        return rounded, torch.zeros_like(rounded)
    step = torch.where(rounded > 0, rounded, 1.0)
    most = 2**form.bits - 1
    low = groups.weights.amin(2).clamp(max=0) * part
    over = (scale - rounded) / step * most
    return rounded, torch.ceil(-low / step - over / 2 - 0.5).clamp(0, most)


def _codes(weights: Tensor, scale: Tensor, zero: Tensor, form: _Form) -> Tensor:
    if form.bits == 1:
        return (weights >= 0).double()
    steps = weights / torch.where(scale > 0, scale, 1.0).unsqueeze(2)
    if form.symmetric:
        half = _half(form.bits)
        return steps.round().clamp(-half, half) + half
    return (steps + zero.unsqueeze(2) + 0.5).floor().clamp(0, 2**form.bits - 1)


def _narrowed(
    groups: _Groups, exact: Tensor, form: _Form, grid: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """For each group the grid of smallest squared error, over parts of its range."""
    scale, zero = grid
    least = _squared_error(groups.weights, scale, zero, form)
    for part in _PARTS[1:]:
        tried = _grid(groups, exact, form, part)
        error = _squared_error(groups.weights, *tried, form)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, tried[0], scale)
        zero = torch.where(better, tried[1], zero)
    return scale, zero


def _squared_error(weights: Tensor, scale: Tensor, zero: Tensor, form: _Form) -> Tensor:
    codes = _codes(weights, scale, zero, form)
    offset = _half(form.bits) if form.symmetric else zero.unsqueeze(2)
    return ((codes - offset) * scale.unsqueeze(2) - weights).square().sum(2)
