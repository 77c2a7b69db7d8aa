"""Which modules a recipe's feature patterns mean, in the upload and in a pruned program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from secateur.recipe_features import FeatureMatch

from engine.errors import PatternMatchesNothing, TrainingRuleUnmet
from engine.features.followed import Followed, Kept, Place
from engine.features.outputs import Feature, Features
from engine.tape import Tape, TensorValue, flatten, record
from engine.torchscript.instructions import Instruction
from engine.torchscript.program import Program

_MOST_NAMED = 40
_WITH_POSITIONS = 3
Where = tuple[Instruction, int]


@dataclass(frozen=True)
class Matched:
    """A feature that student and teacher are compared by.

    Attributes:
        path: of the module.
        loss, weight: of the recipe.
        channels: the dimension of the channels.
        kept: indices of the teacher that the student has left, by dimension.
        teacher, student: the instruction that computes it in the block of each, and which output.
    """

    path: str
    loss: str
    weight: float
    channels: int
    kept: Kept
    teacher: Where
    student: Where


def chosen(features: Features, match: FeatureMatch, *, field: str) -> list[str]:
    """Paths of the upload that an entry of the recipe means; one for each tensor.

    Raises:
        PatternMatchesNothing: no module has such a path.
        TrainingRuleUnmet: none of those that do gives what can be compared.
    """
    named = [*features.found, *features.unusable]
    paths = [path for path in named if fnmatchcase(path, match.layer)]
    if not paths:
        raise PatternMatchesNothing(
            f"`{match.layer}` matches no module that gives a tensor",
            hint=_listed(features),
            where=f"{field}.layer",
        )
    usable: dict[Place, str] = {}
    reasons = []
    for path in paths:
        reason = features.unusable.get(path) or _unfit(features.found[path], match)
        if reason:
            reasons.append(f"{path}: {reason}")
        else:
            # A module and the last one inside of it give the same; the outer one is named.
            feature = features.found[path]
            place = Place(feature.step, feature.output)
            if place not in usable or len(path) < len(usable[place]):
                usable[place] = path
    if not usable:
        raise TrainingRuleUnmet(
            f"no module that `{match.layer}` matches can be compared: {'; '.join(reasons[:5])}",
            hint=_listed(features),
            where=f"{field}.layer",
        )
    return list(usable.values())


def match_features(
    teacher: Program,
    student: Program,
    matches: Sequence[FeatureMatch],
    inputs: Sequence[Any],
    features: Features,
    *,
    field: str,
) -> tuple[list[Matched], list[str]]:
    """What a training run compares, and why modules that a pattern matches are left out.

    Args:
        teacher: the upload.
        student: made of it by pruning.
        matches: of the recipe.
        inputs: the example.
        features: of the upload.
        field: path of the list in the recipe.

    Raises:
        PatternMatchesNothing: see `chosen`.
        TrainingRuleUnmet: nothing is left to compare, or not what the recipe names.
    """
    followed = student.followed or teacher.followed
    if followed is None:
        raise ValueError("features are not followed in this job")
    tape = record(student, inputs)
    places = followed.places(tape)
    found: list[Matched] = []
    left_out: list[str] = []
    for number, match in enumerate(matches):
        here = f"{field}.{number}"
        before = len(found)
        for path in chosen(features, match, field=here):
            reason = _unlike(followed, path, places.get(path), tape, match)
            if reason is None:
                found.append(_matched(followed, path, places[path], tape, match))
            else:
                left_out.append(f"{path}: {reason}")
                if path == match.layer:
                    raise _refused(match, left_out[-1:], here)
        if len(found) == before:
            raise _refused(match, left_out, here)
    return found, left_out


def _refused(match: FeatureMatch, reasons: list[str], field: str) -> TrainingRuleUnmet:
    return TrainingRuleUnmet(
        f"the pruned model has nothing to compare for `{match.layer}`: {'; '.join(reasons[:5])}",
        hint="name a module that pruning leaves in place, such as the block around it, or leave "
        "this entry out",
        where=f"{field}.layer",
    )


def _unlike(
    followed: Followed, path: str, place: Place | None, tape: Tape, match: FeatureMatch
) -> str | None:
    """Why a feature of the pruned program cannot be compared with the upload's."""
    if path in followed.lost:
        return followed.lost[path]
    if place is None:
        return "the pruned model does not compute it any more"
    feature, value = followed.features[path], _value(tape, place)
    if match.loss == "attention":
        expected = list(feature.shape)
        expected[feature.channels] = value.shape[feature.channels]
    else:
        kept = followed.kept.get(path, {})
        expected = [
            len(kept[dim]) if dim in kept else size for dim, size in enumerate(feature.shape)
        ]
    if list(value.shape) != expected:
        return f"it is {list(value.shape)} in the pruned model, and {expected} is expected of it"
    return None


def _matched(
    followed: Followed, path: str, place: Place, tape: Tape, match: FeatureMatch
) -> Matched:
    feature = followed.features[path]
    return Matched(
        path=path,
        loss=match.loss,
        weight=match.weight,
        channels=feature.channels,
        kept={} if match.loss == "attention" else dict(followed.kept.get(path, {})),
        teacher=(followed.tape.steps[feature.step].instruction, feature.output),
        student=(tape.steps[place.step].instruction, place.output),
    )


def _value(tape: Tape, place: Place) -> TensorValue:
    return list(flatten(tape.steps[place.step].outputs))[place.output]


def _unfit(feature: Feature, match: FeatureMatch) -> str | None:
    if match.loss == "attention" and len(feature.shape) < _WITH_POSITIONS:
        return f"`attention` compares positions, and {list(feature.shape)} has none"
    return None


def _listed(features: Features) -> str:
    names = list(features.found)
    if not names:
        return "no module of this model gives a tensor of two or more dimensions"
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"modules whose output can be compared: {', '.join(names[:_MOST_NAMED])}{more}"
