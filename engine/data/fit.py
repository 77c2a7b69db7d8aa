"""Does the dataset fit the model and the loss? Asked once, before any work is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, describe, output_tensor, plain_execution
from engine.data.batches import bounds
from engine.data.columns import span_of
from engine.data.splits import Split
from engine.errors import DatasetInvalid
from engine.structure import at_batch_size, map_tensors

_SPAN = 1 << 16


def check_split(module: Callable[..., Any], split: Split, *, device: str, samples: int = 1) -> None:
    """Run the first samples and hold all targets against the output.

    Args:
        module: the program, in evaluation mode.
        split: what to check.
        device: where the program lies.
        samples: batch size to run, which a program may insist on.

    Raises:
        InputsDoNotFit: the model refuses the inputs; names the tensor.
        DatasetInvalid: targets of wrong dtype, shape or range; names the tensor.
    """
    first, _, _ = split.span(0, min(samples, split.samples))
    own = [map_tensors(value, lambda tensor: tensor.clone().to(device)) for value in first]
    inputs = at_batch_size(own, samples)
    with torch.no_grad(), plain_execution():
        output = call(module, inputs, where=", ".join(split.input_names))
    if isinstance(split.targets, tuple):
        raise DatasetInvalid(
            f"the `{split.name}` split has {len(split.targets)} target tensors; cross-entropy "
            "takes one",
            hint=f"keep `{split.target_name}` only",
            where=split.target_names[1],
        )
    if split.targets is not None:
        logits = output_tensor(output)
        if logits.dim() == 0 or logits.shape[0] != samples:
            raise DatasetInvalid(
                f"the model returns {describe([logits])} for {samples} samples of the dataset",
                hint="the first dimension of the output must count samples; its second, classes",
                where=split.target_name,
            )
        targets = split.targets
        for start, stop in bounds(split.samples, _SPAN, merge_last=False):
            check_targets(logits, span_of(targets, start, stop), split.target_name)


def check_targets(logits: Tensor, targets: Tensor, name: str) -> None:
    """Hold class indices against logits of shape [samples, classes, ...].

    Raises:
        DatasetInvalid: the dtype is no integer, the shape is another, or a class is out of range.
    """
    if targets.dtype.is_floating_point or targets.dtype.is_complex or targets.dtype == torch.bool:
        raise DatasetInvalid(
            f"`{name}` has dtype {str(targets.dtype).removeprefix('torch.')}; cross-entropy takes "
            "class indices",
            hint="store the index of the class as int64, not one-hot rows or scores",
            where=name,
        )
    if logits.dim() < 2:
        raise DatasetInvalid(
            f"the model returns shape {list(logits.shape)}; cross-entropy takes "
            "[samples, classes, ...]",
            hint="use a model whose output holds one score per class",
            where=name,
        )
    if targets.shape[1:] != logits.shape[2:]:
        raise DatasetInvalid(
            f"`{name}` holds {describe([targets])}, which does not fit the model's output "
            f"{describe([logits])}",
            hint=f"one class index for each of {['samples', *logits.shape[2:]]}",
            where=name,
        )
    low, high = int(targets.min()), int(targets.max())
    classes = logits.shape[1]
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise DatasetInvalid(
            f"`{name}` holds class {wrong}; the model has classes 0 to {classes - 1}",
            hint="number the classes from 0 and use the model that was trained on them",
            where=name,
        )
