"""How the schemes of quantise stages store a weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from secateur.recipe_quantize import (
    Codebook,
    HalfPrecision,
    MixedPrecision,
    QuantizeOptions,
    SparseWeights,
    WeightOnly,
    group_size_of,
)
from torch import Tensor

from engine.errors import WeightCannotBeStored
from engine.quantisation.bit_allocation import Format
from engine.quantisation.codebook import codebook_of
from engine.quantisation.encoding import Encoding
from engine.quantisation.half import OutOfHalfRange, to_half
from engine.quantisation.sensitivity import KEEP
from engine.quantisation.sparse import encode_sparse
from engine.quantisation.weight_only import encode_weight_only

Encoder = Callable[[str, Tensor, Tensor | None], Encoding | str]
"""Stores a weight, by its name, its value, and the mask that holds some of it at zero; or says why
it stays as it is."""


def encoder_of(stage: QuantizeOptions, seed: int) -> Encoder:
    """How the scheme of a stage stores a weight, where it stores all in the same format."""
    if isinstance(stage, Codebook):

        def codebook(name: str, weight: Tensor, mask: Tensor | None) -> Encoding:
            return codebook_of(
                name,
                weight,
                size=stage.size,
                method=stage.method,
                start=stage.start,
                seed=seed,
                keep=mask,
                groups=min(stage.groups, weight.shape[0]),
                dtype=torch.float32 if stage.table == "float32" else torch.float16,
            )

        return codebook
    if isinstance(stage, HalfPrecision):
        kind = stage.scheme
        return lambda name, weight, _mask: to_half(name, weight, kind)
    if isinstance(stage, WeightOnly):
        return _grid(stage, stage.bits)
    if isinstance(stage, SparseWeights):
        return _sparse(stage, seed)
    raise TypeError(f"`{type(stage).__name__}` stores no weights")


def formats_of(stage: QuantizeOptions) -> list[Format]:
    """The formats a stage chooses between; one where it chooses nothing."""
    if isinstance(stage, MixedPrecision):
        return [str(one) for one in stage.formats]
    if isinstance(stage, WeightOnly):
        own = [str(stage.bits)]
        if stage.fall_back is None:
            return own
        return own + [str(bits) for bits in (2, 4, 8) if bits > stage.bits] + [KEEP]
    if isinstance(stage, Codebook) and stage.fall_back is not None:
        return [stage.scheme, KEEP]
    return [stage.scheme] if isinstance(stage, Codebook | HalfPrecision | SparseWeights) else []


def encoder_in(stage: QuantizeOptions, form: Format, seed: int) -> Encoder:
    """How a stage stores a weight in one of its formats."""
    if form == "float16":
        return _float16
    if isinstance(stage, WeightOnly | MixedPrecision):
        return _grid(stage, cast(Literal[8, 4, 2, 1], int(form)))
    return encoder_of(stage, seed)


_GROUP = 64
"""Values that are left share a scale in groups of this many."""


def _sparse(stage: SparseWeights, seed: int) -> Encoder:
    def sparse(name: str, weight: Tensor, _mask: Tensor | None) -> Encoding | str:
        if not bool((weight == 0).any()):
            return "no weight of it is zero; prune it before, with `granularity: element` or `n_m`"

        def values(left: Tensor) -> Encoding:
            if stage.bits is not None:
                return encode_weight_only(left, bits=stage.bits, group_size=_GROUP, name=name)
            return codebook_of(name, left, size=stage.shared or 2, seed=seed)

        fewer = stage.bits is not None or stage.shared is not None
        return encode_sparse(weight, encode=values if fewer else None, name=name)

    return sparse


def _grid(stage: WeightOnly | MixedPrecision, bits: Literal[8, 4, 2, 1]) -> Encoder:
    def weight_only(name: str, weight: Tensor, mask: Tensor | None) -> Encoding | str:
        try:
            return encode_weight_only(
                weight,
                bits=bits,
                group_size=group_size_of(stage, bits),
                symmetric=stage.symmetric,
                clip=stage.clip,
                keep_zeros=mask is not None,
                name=name,
            )
        except WeightCannotBeStored as error:
            if len(formats_of(stage)) == 1:
                raise
            return error.title

    return weight_only


def _float16(name: str, weight: Tensor, _mask: Tensor | None) -> Encoding | str:
    try:
        return to_half(name, weight, "fp16")
    except OutOfHalfRange as error:
        return error.title
