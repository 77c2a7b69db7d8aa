"""Which tensor of a model's output a loss or a metric looks at.

A path is made of keys, field names and indices joined by dots: `logits`, `0`, `1.boxes`. Without
one, `engine.calling.output_tensor` says which tensor it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from engine.calling import describe, output_tensor
from engine.errors import OutputNotFound

_FIELD = "recipe.objective.output"
_SHOWN = 24


def picked(output: Any, path: str | None) -> Tensor:
    """The tensor at a path of the output, or the one that stands for the whole of it.

    Raises:
        OutputNotFound: nothing, or no tensor, lies at the path; lists what there is.
        ModelRaised: without a path, the output holds no tensor that could be meant.
    """
    if path is None:
        return output_tensor(output)
    found = output
    for part in path.split("."):
        found = _part(found, part)
    if not isinstance(found, Tensor):
        lying = "nothing" if found is None else type(found).__name__
        raise OutputNotFound(
            f"`objective.output: {path}` is {lying} in the model's output, and no tensor",
            hint=f"the output holds {_listed(output)}",
            where=_FIELD,
        )
    return found


def tensor_paths(output: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of an output with the path that leads to it; the output itself has none."""
    if isinstance(output, Tensor):
        yield prefix, output
        return
    for part, value in _parts(output):
        yield from tensor_paths(value, f"{prefix}.{part}" if prefix else part)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, tuple | list):
        yield from ((str(index), item) for index, item in enumerate(value))


def _part(value: Any, part: str) -> Any:
    """One step along a path; None where there is nothing."""
    for name, item in _parts(value):
        if name == part:
            return item
    # TorchScript gives a NamedTuple back as a tuple with its fields' names.
    return getattr(value, part) if part in getattr(value, "_fields", ()) else None


def _listed(output: Any) -> str:
    found = [f"`{path}` {describe([tensor])}" for path, tensor in tensor_paths(output) if path]
    if not found:
        return f"only {describe([output])}; leave `output` out"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
