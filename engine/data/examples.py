"""Example inputs: what the analysis runs the model on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from secateur.recipe import InputSpec
from torch import Tensor

from engine.data.splits import Dataset
from engine.errors import InputsDoNotFit
from engine.seeds import generator


def example_inputs(
    specs: Sequence[InputSpec] | None, dataset: Dataset | None, *, seed: int, device: str
) -> tuple[Tensor, ...]:
    """Inputs for one run of `forward`, from the recipe or else from the dataset's first sample.

    Raises:
        InputsDoNotFit: neither says what the model takes.
    """
    if specs is not None:
        return tuple(_draw(spec, position, seed).to(device) for position, spec in enumerate(specs))
    if dataset is not None:
        # A clone, so that nothing holds on to the mapped file or sees its read-only pages.
        return tuple(tensor[:1].clone().to(device) for tensor in dataset.examples.inputs)
    raise InputsDoNotFit(
        "the recipe does not say what the model takes, and there is no dataset to take it from",
        hint="add `inputs`, such as `inputs: [{shape: [1, 3, 224, 224]}]`, or send a dataset",
        where="recipe.inputs",
    )


def source_of_examples(specs: Sequence[InputSpec] | None, dataset: Dataset | None) -> str:
    """The field or tensor to blame when the model refuses the example inputs."""
    if specs is None and dataset is not None:
        return dataset.examples.input_names[0]
    return "recipe.inputs"


def at_batch_size(inputs: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
    """The example repeated or cut along dimension 0 to `size` samples.

    Only arguments that share the first argument's leading dimension carry samples; others (a
    scalar, a table) stay as they are.
    """
    leading = inputs[0].shape[0] if inputs[0].dim() else 1

    def resized(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != leading or leading == size:
            return tensor
        rows = torch.arange(size, device=tensor.device) % leading
        return tensor.index_select(0, rows)

    return tuple(resized(tensor) for tensor in inputs)


def _draw(spec: InputSpec, position: int, seed: int) -> Tensor:
    try:
        return _random(spec, position, seed)
    except RuntimeError as error:
        # more elements than an index counts, or more bytes than the machine has
        raise InputsDoNotFit(
            f"an input of shape {list(spec.shape)} and dtype {spec.dtype} cannot be made: "
            f"{str(error).splitlines()[0]}",
            hint="correct the shape, or run on a machine with more memory",
            where=f"recipe.inputs.{position}.shape",
        ) from error


def _random(spec: InputSpec, position: int, seed: int) -> Tensor:
    source = generator(seed, "inputs", position)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype == torch.bool:
        return torch.randint(0, 2, spec.shape, generator=source).to(torch.bool)
    if not dtype.is_floating_point:
        # Without a bound only 0 and 1 are safe for any table of two rows or more.
        return torch.randint(0, spec.high or 2, spec.shape, generator=source, dtype=dtype)
    return torch.randn(spec.shape, generator=source).to(dtype)
