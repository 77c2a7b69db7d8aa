"""What the quantisation stages of a job made so far: how each weight is to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.recipe_quantize import Decode
from torch import Tensor

from engine.quantisation.codebook import Codebook
from engine.quantisation.encoding import Encoding, Encodings
from engine.quantisation.half import Half
from engine.quantisation.half_lowering import HalfLowering
from engine.quantisation.int8.lowerings import DynamicInt8, StaticInt8
from engine.quantisation.lowering import Lowering
from engine.quantisation.sparse import Sparse
from engine.quantisation.weight_only import WeightOnly

_SCHEMES: dict[str, type[Encoding]] = {
    kind.scheme: kind for kind in (WeightOnly, Codebook, Half, Sparse)
}
_LOWERINGS: dict[str, type[Lowering]] = {
    kind.scheme: kind for kind in (HalfLowering, DynamicInt8, StaticInt8)
}


@dataclass
class Quantised:
    """How the weights of a program are stored in its file.

    Attributes:
        encodings: of the weights that are stored in fewer bits, by name.
        decode: when each of them becomes numbers.
        lowering: arithmetic in fewer bits; None where it stays in floating point.
        trained: the weights that the stage under way is to train, by name, as they were before it.
    """

    encodings: Encodings = field(default_factory=dict)
    decode: dict[str, Decode] = field(default_factory=dict)
    lowering: Lowering | None = None
    trained: dict[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.encodings) or self.lowering is not None

    def at(self, decode: Decode) -> Encodings:
        """The encodings that become numbers then."""
        return {name: one for name, one in self.encodings.items() if self.decode[name] == decode}

    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors, for checkpoints."""
        lowering = self.lowering
        return {
            "encodings": {
                name: {"scheme": one.scheme, "decode": self.decode[name], **one.to_plain()}
                for name, one in self.encodings.items()
            },
            "trained": self.trained,
            "lowering": None
            if lowering is None
            else {"scheme": lowering.scheme, **lowering.to_plain()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any] | None) -> Quantised:
        """The inverse of `to_plain`; checkpoints of older versions have none."""
        held = cls()
        if plain is None:
            return held
        for name, one in plain["encodings"].items():
            held.encodings[name] = _SCHEMES[one["scheme"]].from_plain(one)
            held.decode[name] = one["decode"]
        held.trained = plain.get("trained", {})
        lowering = plain["lowering"]
        if lowering is not None:
            held.lowering = _LOWERINGS[lowering["scheme"]].from_plain(lowering)
        return held
