"""Datasets as files of tensors: `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, ...

After `inputs` comes the position of the `forward` argument, or its name; where the argument is a
list, a tuple or a dictionary, the path of the tensor inside it follows, such as
`train/inputs/0/image`. The first dimension counts samples and is equal within a split.

A safetensors file stays on disk (its tensors are views of the memory-mapped file); an npz file is
read into memory, because its arrays are compressed or unaligned.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import DatasetInvalid
from engine.structure import samples_in

SplitName = Literal["train", "validation"]
_NAME = re.compile(
    r"(train|validation)/(inputs/[A-Za-z_0-9.]+(/[^/\x00-\x1f]+){0,4}|targets/[A-Za-z_0-9.]+)"
)


@dataclass(frozen=True)
class Split:
    """Samples of one purpose.

    Attributes:
        name: `train` or `validation`.
        inputs: one tensor per positional argument of `forward`, samples first; or a nested
            argument, whose parts are still in dictionaries by name until
            `engine.data.arguments.arrange_split`.
        input_names: the names of all tensors of the inputs, in order.
        targets: class indices, or None.
        target_name: their name in the file.
    """

    name: SplitName
    inputs: tuple[Any, ...]
    input_names: tuple[str, ...]
    targets: Tensor | None
    target_name: str

    @property
    def samples(self) -> int:
        """Number of samples."""
        return samples_in(self.inputs)


@dataclass(frozen=True)
class Dataset:
    """An opened dataset file."""

    train: Split | None
    validation: Split | None

    @property
    def examples(self) -> Split:
        """The split that example inputs are taken from."""
        return self.validation if self.validation is not None else self.require_any()

    def require_any(self) -> Split:
        """The training split, where there is no validation split.

        Raises:
            DatasetInvalid: there is neither.
        """
        if self.train is None:
            raise DatasetInvalid(
                "the dataset has neither a `train` nor a `validation` split",
                hint="add tensors `train/inputs/0` and `train/targets/0`",
                where="train/inputs/0",
            )
        return self.train

    def require(self, name: SplitName, field: str, *, targets: bool = True) -> Split:
        """The split that a recipe field needs, with its targets unless it needs none.

        Raises:
            DatasetInvalid: it is missing, or has no targets.
        """
        split = self.require_inputs(name, field)
        if targets and split.targets is None:
            raise DatasetInvalid(
                f"the `{name}` split has no targets, which `{field}` needs",
                hint=f"add a tensor `{name}/targets/0` of class indices (int64)",
                where=f"{name}/targets/0",
            )
        return split

    def require_inputs(self, name: SplitName, field: str) -> Split:
        """The split that a recipe field needs, with or without targets.

        Raises:
            DatasetInvalid: it is missing.
        """
        split = self.train if name == "train" else self.validation
        if split is None:
            raise DatasetInvalid(
                f"the dataset has no `{name}` split, which `{field}` needs",
                hint=f"add tensors `{name}/inputs/0` and `{name}/targets/0`",
                where=f"{name}/inputs/0",
            )
        return split


def open_dataset(
    path: Path, arguments: Sequence[str], values: Mapping[int, Any] | None = None
) -> Dataset:
    """Open a dataset file for a model whose `forward` takes `arguments`.

    Args:
        path: of the file.
        arguments: names, in order.
        values: arguments that need no tensor, by position.

    Raises:
        DatasetInvalid: unreadable, misnamed, empty or inconsistent; names the tensor.
    """
    tensors = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    if not tensors:
        raise DatasetInvalid(
            "the dataset holds no tensors",
            hint="name them `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, ...",
            where=path.name,
        )
    for name in tensors:
        if not _NAME.fullmatch(name):
            raise DatasetInvalid(
                f"tensor `{name}` has a name that means nothing",
                hint="use `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, ...: the "
                "position or name of the forward argument, and for a nested one the keys or "
                "indices below it (`train/inputs/0/image`)",
                where=name,
            )
    train = _split("train", tensors, arguments, values or {})
    validation = _split("validation", tensors, arguments, values or {})
    return Dataset(train=train, validation=validation)


def _split(
    split: SplitName,
    tensors: dict[str, Tensor],
    arguments: Sequence[str],
    values: Mapping[int, Any],
) -> Split | None:
    prefix = f"{split}/"
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not mine:
        return None
    for name, tensor in mine.items():
        if tensor.dim() == 0:
            raise DatasetInvalid(
                f"tensor `{name}` is a single number",
                hint="its first dimension must count the samples",
                where=name,
            )
        if tensor.shape[0] == 0:
            raise DatasetInvalid(
                f"the `{split}` split is empty: `{name}` has shape {list(tensor.shape)}",
                hint="give at least one sample, or leave the split out",
                where=name,
            )
    first = next(iter(mine))
    for name, tensor in mine.items():
        if tensor.shape[0] != mine[first].shape[0]:
            raise DatasetInvalid(
                f"`{name}` has {tensor.shape[0]} samples, `{first}` has {mine[first].shape[0]}",
                hint="every tensor of a split has the same first dimension",
                where=name,
            )
    given: dict[int, Any] = dict(values)
    order: dict[int, list[str]] = {}
    for name, tensor in mine.items():
        if name.startswith(f"{split}/inputs/"):
            position = _position(name, arguments)
            if position not in order:
                given.pop(position, None)
            order.setdefault(position, []).append(name)
            _place(given, (position, *name.split("/")[3:]), name, tensor)
    for position in range(max(order, default=0) + 1):
        if position not in given or not order:
            raise DatasetInvalid(
                f"the `{split}` split has no input for argument {position} of `forward`",
                hint=f"add a tensor `{split}/inputs/{position}`, or, where the argument takes "
                "none, its value under `inputs` in the recipe",
                where=f"{split}/inputs/{position}",
            )
    targets = [name for name in mine if name.startswith(f"{split}/targets/")]
    if len(targets) > 1:
        raise DatasetInvalid(
            f"the `{split}` split has {len(targets)} target tensors; cross-entropy takes one",
            hint=f"keep `{split}/targets/0` only",
            where=targets[1],
        )
    return Split(
        name=split,
        inputs=tuple(given[position] for position in takewhile(given.__contains__, count())),
        input_names=tuple(name for position in sorted(order) for name in order[position]),
        targets=mine[targets[0]] if targets else None,
        target_name=targets[0] if targets else f"{split}/targets/0",
    )


def _place(whole: dict[int, Any], path: Sequence[Any], name: str, tensor: Tensor) -> None:
    """Put a tensor into nested dictionaries."""
    *parents, last = path
    tree: Any = whole
    for part in parents:
        tree = tree.setdefault(part, {}) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or last in tree:
        raise DatasetInvalid(
            f"`{name}` stands where the dataset has another tensor",
            hint="give an argument one tensor, or one for each of its items, once",
            where=name,
        )
    tree[last] = tensor


def _position(name: str, arguments: Sequence[str]) -> int:
    key = name.split("/")[2]
    if key.isdigit():
        if int(key) < len(arguments):
            return int(key)
    elif key in arguments:
        return arguments.index(key)
    takes = ", ".join(f"`{argument}`" for argument in arguments) or "nothing"
    raise DatasetInvalid(
        f"`{name}` names no argument of the model's forward, which takes {takes}",
        hint="put the position or the name of an argument after `inputs/`",
        where=name,
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        # The handle's tensors are views of the mapped file and outlive the handle.
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DatasetInvalid(
            f"the dataset is not a readable safetensors file: {error}",
            hint="write it with `safetensors.torch.save_file`; an upload cut short must be redone",
            where=path.name,
        ) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                array = file[name]
                tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
                if array.ndim == 0:  # ascontiguousarray makes one dimension of none
                    tensors[name] = tensors[name].reshape(())
    except TypeError as error:
        raise DatasetInvalid(
            f"array `{name}` has a dtype that torch lacks: {error}",
            hint="store numbers (float32, int64, uint8, ...)",
            where=name,
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetInvalid(
            f"the dataset is not a readable npz file: {error}",
            hint="write it with `numpy.savez`, without Python objects",
            where=path.name,
        ) from error
    return tensors
