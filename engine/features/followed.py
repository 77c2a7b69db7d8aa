"""Features of an upload, followed through pruning.

A program that carries a `Followed` can be asked where it computes a feature of the upload (see
`engine.features.identity`), and which of the upload's channels it still has there. Copies of the
program carry the same; a removal of channels makes the next: of the indices that were kept of a
dimension, those at the surviving places are kept from then on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from engine.compaction.survivors import Survivors
from engine.features.identity import value_keys
from engine.features.outputs import Feature
from engine.tape import Tape, flatten

Kept = dict[int, Tensor]
"""By dimension, the int64 indices of the upload that are left; others are whole."""


@dataclass(frozen=True)
class Place:
    """Where a run computes a feature: a step of its tape, and which tensor of it."""

    step: int
    output: int


@dataclass(frozen=True)
class Followed:
    """The features that a program's training compares.

    Attributes:
        tape: of the upload.
        features: by path.
        kept: by path, what is left of the dimensions that shrank.
        lost: by path, why it can no longer be followed.
    """

    tape: Tape
    features: Mapping[str, Feature]
    kept: Mapping[str, Kept] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)

    def places(self, tape: Tape) -> dict[str, Place]:
        """Where a run of a pruned program computes the features; those it does not are left out."""
        gone = {
            name
            for name in self.tape.tensors
            if name not in tape.tensors and not name.startswith("constant:")
        }
        before, after = _places_by_key(self.tape, gone), _places_by_key(tape)
        named = {place: key for key, places in before.items() for place in places}
        found = {}
        for path, feature in self.features.items():
            key = named.get(Place(feature.step, feature.output))
            if key is None:
                continue
            own, others = before[key], after.get(key, [])
            # The same computation more than once: the first is the first.
            number = own.index(Place(feature.step, feature.output))
            if number < len(others):
                found[path] = others[number]
        return found

    def after(self, tape: Tape, survivors: Survivors) -> Followed:
        """What is followed in the program that a removal makes.

        Args:
            tape: of the program before it.
            survivors: of the removal.
        """
        kept, lost = dict(self.kept), dict(self.lost)
        places = self.places(tape)
        for path, feature in self.features.items():
            place = places.get(path)
            if place is None:
                continue  # its layer is gone, which training says
            value = list(flatten(tape.steps[place.step].outputs))[place.output]
            if len(value.shape) != len(feature.shape):
                lost[path] = "its number of dimensions changed"
                continue
            kept[path] = _narrowed(kept.get(path, {}), survivors.kept_of(value), feature)
        return replace(self, kept=kept, lost=lost)

    def to_plain(self) -> dict[str, Any]:
        """What changed since the upload, for a checkpoint."""
        return {
            "kept": {path: dict(kept) for path, kept in self.kept.items()},
            "lost": dict(self.lost),
        }

    def recalled(self, plain: Mapping[str, Any] | None) -> Followed:
        """The same features after what a checkpoint says; older ones pruned none of them."""
        if plain is None:
            return self
        return replace(self, kept=plain["kept"], lost=plain["lost"])


def _narrowed(kept: Kept, surviving: Kept, feature: Feature) -> Kept:
    narrowed = dict(kept)
    for dim, indices in surviving.items():
        before = kept.get(dim, torch.arange(feature.shape[dim]))
        narrowed[dim] = before[indices]
    return narrowed


def _places_by_key(tape: Tape, gone: set[str] | None = None) -> dict[bytes, list[Place]]:
    places: dict[bytes, list[Place]] = defaultdict(list)
    for step, keys in enumerate(value_keys(tape, gone or set())):
        for output, key in enumerate(keys):
            if key is not None:
                places[key].append(Place(step, output))
    return places
