"""Operators that read shapes or types only, or make tensors out of numbers."""

from __future__ import annotations

from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, flatten


@rule(
    "size", "dim", "numel", "is_floating_point", "is_complex", "len", "stride", "storage_offset",
    "is_contiguous", "item", "Int", "Float", "Bool", "IntImplicit", "FloatImplicit",
    "ScalarImplicit", "get_device", "_shape_as_tensor", "sym_size", "equal", "prim::is_nested",
)  # fmt: skip
def reads_shape(tracker: Tracker, step: Step) -> None:
    """No values flow; compaction checks what depends on a size that shrank."""
    for output in flatten(step.outputs):
        tracker.assign(output, [None] * len(output.shape))


@rule("zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_full", "new_empty")
def uniform(tracker: Tracker, step: Step) -> None:
    """A tensor of one value: its sizes can follow what it is combined with."""
    value = step.outputs[0]
    tracker.assign(
        value,
        [
            tracker.space.allocate("", dim, size) if size > 1 else None
            for dim, size in enumerate(value.shape)
        ],
    )


@rule(
    "arange", "eye", "linspace", "rand", "randn", "randint", "tensor", "scalar_tensor",
    "tril_indices", "triu_indices", "randperm",
)  # fmt: skip
def factory(tracker: Tracker, step: Step) -> None:
    """A tensor whose values depend on their position; nothing in it can be removed."""
    for output in flatten(step.outputs):
        tracker.assign(output, [None] * len(output.shape))
