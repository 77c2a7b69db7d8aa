"""Example inputs: what the analysis runs the model on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from secateur.recipe_inputs import (
    DictInput,
    Input,
    InputSpec,
    ListInput,
    TupleInput,
    ValueInput,
)
from torch import Tensor

from engine.data.splits import Dataset
from engine.errors import InputsDoNotFit
from engine.seeds import generator
from engine.structure import map_tensors

_FIELD = "recipe.inputs"


def example_inputs(
    specs: Sequence[Input] | None, dataset: Dataset | None, *, seed: int, device: str
) -> tuple[Any, ...]:
    """Inputs for one run of `forward`, from the recipe or else from the dataset's first sample.

    Raises:
        InputsDoNotFit: neither says what the model takes.
    """
    if specs is not None:
        made = (
            _made(spec, f"{_FIELD}.{position}", ("inputs", position), seed)
            for position, spec in enumerate(specs)
        )
        return tuple(map_tensors(value, lambda tensor: tensor.to(device)) for value in made)
    if dataset is not None:
        # A clone, so that nothing holds on to the mapped file or sees its read-only pages.
        first, _, _ = dataset.examples.span(0, 1)
        return tuple(map_tensors(item, lambda tensor: tensor.clone().to(device)) for item in first)
    raise InputsDoNotFit(
        "the recipe does not say what the model takes, and there is no dataset to take it from",
        hint="add `inputs`, such as `inputs: [{shape: [1, 3, 224, 224]}]`, or send a dataset",
        where=_FIELD,
    )


def source_of_examples(specs: Sequence[Input] | None, dataset: Dataset | None) -> str:
    """The field or tensor to blame when the model refuses the example inputs."""
    if specs is None and dataset is not None:
        return dataset.examples.input_names[0]
    return _FIELD


def values_of(specs: Sequence[Input] | None) -> dict[int, Any]:
    """The recipe's arguments that hold no tensor, by position; a dataset has no place for them."""
    return {
        position: _made(spec, f"{_FIELD}.{position}", ("inputs", position), 0)
        for position, spec in enumerate(specs or [])
        if not any(isinstance(entry, InputSpec) for entry in _entries(spec))
    }


def _entries(spec: Input) -> Iterator[Input]:
    """A spec and everything in it."""
    yield spec
    if isinstance(spec, ListInput | TupleInput):
        for item in spec.items:
            yield from _entries(item)
    elif isinstance(spec, DictInput):
        for item in spec.entries.values():
            yield from _entries(item)


def _made(spec: Input, field: str, purpose: tuple[str | int, ...], seed: int) -> Any:
    """What a spec describes.

    Args:
        spec: of the recipe.
        field: its path, for errors.
        purpose: names the draw; every tensor has its own.
        seed: of the recipe.
    """
    if isinstance(spec, InputSpec):
        return _draw(spec, field, purpose, seed)
    if isinstance(spec, ValueInput):
        return spec.value
    if isinstance(spec, DictInput):
        return {
            key: _made(item, f"{field}.dict.{key}", (*purpose, key), seed)
            for key, item in spec.entries.items()
        }
    kind = list if isinstance(spec, ListInput) else tuple
    return kind(
        _made(item, f"{field}.{kind.__name__}.{index}", (*purpose, index), seed)
        for index, item in enumerate(spec.items)
    )


def _draw(spec: InputSpec, field: str, purpose: tuple[str | int, ...], seed: int) -> Tensor:
    try:
        return _random(spec, generator(seed, *purpose))
    except RuntimeError as error:
        # more elements than an index counts, or more bytes than the machine has
        raise InputsDoNotFit(
            f"an input of shape {list(spec.shape)} and dtype {spec.dtype} cannot be made: "
            f"{str(error).splitlines()[0]}",
            hint="correct the shape, or run on a machine with more memory",
            where=f"{field}.shape",
        ) from error


def _random(spec: InputSpec, source: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype == torch.bool:
        return torch.randint(0, 2, spec.shape, generator=source).to(torch.bool)
    if not dtype.is_floating_point:
        # Without a bound only 0 and 1 are safe for any table of two rows or more.
        return torch.randint(0, spec.high or 2, spec.shape, generator=source, dtype=dtype)
    return torch.randn(spec.shape, generator=source).to(dtype)
