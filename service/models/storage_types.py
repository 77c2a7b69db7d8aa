"""Tensors as a pickle describes them, and whether the described elements exist.

torch's reader takes the pickle's word for how large a storage is and where in it a tensor lies. A
number too large makes it read memory that is not the tensor's, so every number is checked against
the bytes that are in the archive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STORAGES: Mapping[str, int] = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "ComplexHalfStorage": 4,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
    "Float8_e5m2Storage": 1,
    "Float8_e4m3fnStorage": 1,
    "Float8_e5m2fnuzStorage": 1,
    "Float8_e4m3fnuzStorage": 1,
}
"""Types of storages and the bytes of one element."""


class TensorRefused(Exception):
    """A tensor lies outside its bytes, or is absurdly large; the text says which."""


@dataclass(frozen=True)
class StorageRef:
    """One record of numbers: its type, the name of its record, the elements it should have."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """One tensor: a view of a storage, offset and strides in elements."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def check_tensors(
    tensors: Iterable[TensorRef], records: Mapping[str, int], max_bytes: int
) -> set[str]:
    """Hold every tensor against the records of its folder.

    Args:
        tensors: of one pickle.
        records: bytes of each record, by key.
        max_bytes: the most that all distinct tensors may have together, written out.

    Returns:
        The keys of the records that are used.

    Raises:
        TensorRefused: one does not fit.
    """
    used: set[str] = set()
    total = 0
    for tensor in set(tensors):
        storage = tensor.storage
        if storage.key not in records:
            raise TensorRefused(f"the record `{storage.key}` of a tensor is missing")
        width = STORAGES[storage.kind]
        if storage.count * width != records[storage.key]:
            raise TensorRefused(
                f"the record `{storage.key}` has {records[storage.key]} bytes, and "
                f"{storage.count} elements of {width} bytes are to lie in it"
            )
        elements, last = 1, tensor.offset
        for size, stride in zip(tensor.size, tensor.stride, strict=True):
            elements *= size
            last += max(size - 1, 0) * stride
        if elements > 0 and last >= storage.count * _elements_a_byte(storage.kind):
            raise TensorRefused(
                f"a tensor of the shape {list(tensor.size)[:8]} reaches behind the end of the "
                f"record `{storage.key}`"
            )
        total += elements * width
        if total > max_bytes:
            raise TensorRefused(
                f"its tensors have more than {max_bytes} bytes together; a tensor of the shape "
                f"{list(tensor.size)[:8]} is among them"
            )
        used.add(storage.key)
    return used


def _elements_a_byte(kind: str) -> int:
    return {"QUInt4x2Storage": 2, "QUInt2x4Storage": 4}.get(kind, 1)
