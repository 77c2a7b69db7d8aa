"""Whether the tensors of a file make a dataset, and how many samples its splits have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from secateur.resources import TensorInfo

from service.datasets.problems import DatasetRefused

SPLITS = ("train", "validation", "unlabelled")

_KEY = r"(?:0|[1-9]\d{0,3}|[A-Za-z_]\w{0,199})"
_TOKENS = frozenset({"uint8", "uint16", "int8", "int16", "int32", "int64"})
_NAME = re.compile(
    rf"(train|validation|unlabelled)/"
    rf"(?:(inputs)/({_KEY}(?:/[^/\x00-\x1f]{{1,200}}){{0,4}})|(targets)/({_KEY})|(tokens))"
)


def check_layout(tensors: Sequence[TensorInfo]) -> dict[str, int]:
    """Samples per split, in the order `train`, `validation`.

    Raises:
        DatasetRefused: names the tensor at fault.
    """
    if not tensors:
        raise DatasetRefused("The file holds no tensors.")
    samples: dict[str, tuple[int, str]] = {}
    members: dict[tuple[str, str], set[str]] = defaultdict(set)
    for tensor in sorted(tensors, key=lambda one: one.name):
        split, role, key = _name(tensor.name)
        _check_kind(tensor, role)
        members[split, role].add(key)
        if not tensor.shape:
            raise DatasetRefused(
                f"`{tensor.name}` is a scalar; its first dimension must count samples.",
                tensor=tensor.name,
            )
        if tensor.shape[0] == 0:
            raise DatasetRefused(
                f"`{tensor.name}` has no samples: its shape is {tensor.shape}.",
                tensor=tensor.name,
                hint=f"Put at least one sample into the split `{split}`, or leave the split out.",
            )
        count, first = samples.setdefault(split, (tensor.shape[0] or 0, tensor.name))
        if tensor.shape[0] != count:
            raise DatasetRefused(
                f"`{tensor.name}` has {tensor.shape[0]} samples, `{first}` has {count}.",
                tensor=tensor.name,
                hint=f"All tensors of the split `{split}` need the same first dimension.",
            )
    for split in samples:
        _check_members(split, members)
    return {split: samples[split][0] for split in SPLITS if split in samples}


def _name(name: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DatasetRefused(f"`{name}` is not a name of a dataset tensor.", tensor=name)
    if match[1] == "unlabelled" and match[4]:
        raise DatasetRefused(
            f"`{name}` gives targets to samples without labels.",
            tensor=name,
            hint="Put labelled samples into the split `train`.",
        )
    return match[1], match[2] or match[4] or match[6], match[3] or match[5] or ""


def _check_kind(tensor: TensorInfo, role: str) -> None:
    if role == "tokens":
        if len(tensor.shape) != 1 or tensor.dtype not in _TOKENS:
            raise DatasetRefused(
                f"`{tensor.name}` is {tensor.dtype} of shape {tensor.shape}; a stream of tokens is "
                "one list of integers.",
                tensor=tensor.name,
                hint="Store all tokens of a split one after the other, as uint16 or int32.",
            )
    elif tensor.dtype == "uint16":
        raise DatasetRefused(
            f"`{tensor.name}` is uint16, which only streams of tokens (`train/tokens`) are.",
            tensor=tensor.name,
            hint="Convert it to int32.",
        )


def _check_members(split: str, members: dict[tuple[str, str], set[str]]) -> None:
    if members[split, "tokens"]:
        if members[split, "inputs"] or members[split, "targets"]:
            raise DatasetRefused(
                f"The split `{split}` has a stream of tokens, which is inputs and targets at once, "
                "and others beside it.",
                tensor=f"{split}/tokens",
                hint="Leave out one or the other.",
            )
        return
    if not members[split, "inputs"]:
        raise DatasetRefused(
            f"The split `{split}` has targets but no inputs.", tensor=f"{split}/inputs/0"
        )
    for role in ("inputs", "targets"):
        first = {key.partition("/")[0] for key in members[split, role]}
        numbers = sorted(int(key) for key in first if key.isdigit())
        for expected, number in enumerate(numbers):
            if number != expected:
                missing = f"{split}/{role}/{expected}"
                raise DatasetRefused(
                    f"`{split}/{role}/{number}` is there, but `{missing}` is not.", tensor=missing
                )
        other = "train" if members["train", "inputs"] and split != "train" else "validation"
        mine, theirs = members[split, role], members[other, role]
        if role == "targets" and "unlabelled" in (split, other):
            continue
        if role == "targets" and not members["train", "targets"]:
            continue  # to learn from the upload alone, or to measure on; the recipe tells at POST
        if members[other, "inputs"] and theirs != mine:
            odd = sorted(mine ^ theirs)[0]
            raise DatasetRefused(
                f"`{role}/{odd}` is in one split but not in the other.",
                tensor=f"{split if odd in theirs else other}/{role}/{odd}",
                hint="Both splits need the same tensors.",
            )
