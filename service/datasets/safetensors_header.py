"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors without gaps."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from secateur.resources import TensorInfo

from service.datasets.problems import DatasetRefused

_MAX_HEADER_BYTES = 16 * 2**20
_WRITE = "Write the file with `safetensors.torch.save_file` or `safetensors.numpy.save_file`."
_AGAIN = "The file is damaged or was cut off; save and send it again."

DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "U16": ("uint16", 2),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}
"""Format name to dtype and bytes an element."""


def looks_like_safetensors(path: Path) -> bool:
    """Whether the file starts with a header length and an opening brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") > 1


def read_header(path: Path) -> list[TensorInfo]:
    """The tensors, checked against each other and the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise DatasetRefused(f"The header claims {length} bytes.", hint=_WRITE)
        text = file.read(length)
    if len(text) < length:
        raise DatasetRefused(f"The header claims {length} bytes; the file has {size}.", hint=_AGAIN)
    header = _parse(text)
    header.pop("__metadata__", None)
    spans: list[tuple[int, int, str]] = []
    tensors = []
    for name, entry in header.items():
        tensor, begin, end = _tensor(name, entry)
        tensors.append(tensor)
        spans.append((begin, end, name))
    _check_spans(spans, size - 8 - length)
    return tensors


def _parse(text: bytes) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise DatasetRefused(f"The header names `{name}` twice.", tensor=name, hint=_WRITE)
            found[name] = value
        return found

    try:
        header = json.loads(text, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DatasetRefused(f"The header is not JSON: {error}.", hint=_WRITE) from error
    if not isinstance(header, dict):
        raise DatasetRefused("The header is not a JSON object.", hint=_WRITE)
    return header


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    fields = entry if isinstance(entry, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DatasetRefused(
            f"`{name}` has dtype {dtype!r}; valid are {', '.join(DTYPES)}.", tensor=name
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise DatasetRefused(
            f"`{name}` has no valid `shape` and `data_offsets`.", tensor=name, hint=_WRITE
        )
    kind, width = DTYPES[dtype]
    begin, end = offsets
    if end - begin != prod(shape) * width:
        raise DatasetRefused(
            f"`{name}` of shape {shape} and dtype {dtype} needs {prod(shape) * width} bytes; its "
            f"offsets span {end - begin}.",
            tensor=name,
            hint=_WRITE,
        )
    return TensorInfo(name=name, dtype=kind, shape=shape), begin, end


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _check_spans(spans: list[tuple[int, int, str]], available: int) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise DatasetRefused(
                f"The bytes of `{name}` start at {begin}, not at {position} where the tensor "
                "before it ends.",
                tensor=name,
                hint=_WRITE,
            )
        if end > available:
            raise DatasetRefused(
                f"The bytes of `{name}` end at {end}, but only {available} are there.",
                tensor=name,
                hint=_AGAIN,
            )
        position = end
    if position != available:
        raise DatasetRefused(f"{available - position} bytes follow the last tensor.", hint=_WRITE)
