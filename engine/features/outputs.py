"""What each submodule of a program gives: its features.

The output of a module is what its code computes and other code reads: of the steps of a run that
stand in the module or in one inside of it, the value that a step outside, or the caller, reads. A
file without calls (see `engine.torchscript.scopes`) still tells the outputs of layers that own
weights: the last value computed from them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from engine.features.dimensions import channel_dimensions, usual_dimension
from engine.tape import Tape, TensorValue, flatten
from engine.torchscript.scopes import module_path

_LEAST_RANK = 2


@dataclass(frozen=True)
class Feature:
    """The output of a module in one run.

    Attributes:
        path: dotted path of the module.
        step: that computes it, by position in the tape.
        output: which of the step's tensors, flattened.
        shape: in the upload, on the example.
        channels: the dimension of its channels.
    """

    path: str
    step: int
    output: int
    shape: tuple[int, ...]
    channels: int


@dataclass(frozen=True)
class Features:
    """All that a program's modules give.

    Attributes:
        found: by path, in the order of the run.
        unusable: by path, why a module's output is no feature.
    """

    found: dict[str, Feature]
    unusable: dict[str, str]


def find_features(tape: Tape) -> Features:
    """The features of a run."""
    given = _given_by_modules(tape)
    for layer, place in _last_of_layers(tape).items():
        given.setdefault(layer, {place: None})
    dims = channel_dimensions(tape)
    found: dict[str, Feature] = {}
    unusable: dict[str, str] = {}
    runs = Counter(step.instruction.index for step in tape.steps)
    for path, places in sorted(given.items(), key=lambda item: max(item[1])):
        if len(places) > 1:
            unusable[path] = f"it gives {len(places)} tensors, or is called more than once"
            continue
        ((step, output),) = places
        value = _output(tape, step, output)
        if runs[tape.steps[step].instruction.index] > 1:
            unusable[path] = "it is computed in a loop, more than once"
        elif not all(isinstance(made, TensorValue) for made in tape.steps[step].outputs):
            unusable[path] = "it is part of a list of tensors"
        elif not value.dtype.is_floating_point:
            unusable[path] = f"it gives {value.dtype}"
        elif len(value.shape) < _LEAST_RANK:
            unusable[path] = f"it gives a tensor of shape {list(value.shape)}, without channels"
        else:
            dim = dims.get(value.number, usual_dimension(value.shape))
            found[path] = Feature(path, step, output, value.shape, dim)
    return Features(found, unusable)


def _given_by_modules(tape: Tape) -> dict[str, dict[tuple[int, int], None]]:
    """By path, the places of what is read outside of the module."""
    paths: dict[int, str] = {}
    writer: dict[int, tuple[int, int, str]] = {}
    given: dict[str, dict[tuple[int, int], None]] = {}

    def read(value: TensorValue, reader: str) -> None:
        if value.number in writer:
            step, output, path = writer[value.number]
            for module in _around(path):
                if not f"{reader}.".startswith(f"{module}."):
                    given.setdefault(module, {})[step, output] = None

    for position, step in enumerate(tape.steps):
        index = step.instruction.index
        if index not in paths:
            paths[index] = module_path(step.instruction)
        for value in step.tensors():
            read(value, paths[index])
        for output, value in enumerate(flatten(step.outputs)):
            writer[value.number] = position, output, paths[index]
    for value in tape.outputs:
        read(value, "")
    return given


def _around(path: str) -> list[str]:
    """A module and those around it, without the program itself."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _last_of_layers(tape: Tape) -> dict[str, tuple[int, int]]:
    """By layer that owns weights, the first output of the last step that reads one of them."""
    last = {}
    for position, step in enumerate(tape.steps):
        for value in step.tensors():
            name = value.name
            if name is None or name.startswith("constant:") or "." not in name:
                continue
            if any(True for _ in flatten(step.outputs)):
                last[name.rpartition(".")[0]] = position, 0
    return last


def _output(tape: Tape, step: int, output: int) -> TensorValue:
    return list(flatten(tape.steps[step].outputs))[output]
