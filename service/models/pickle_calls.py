"""What torch's unpickler makes of the calls in a pickle, with stand-ins."""

from __future__ import annotations

import re
from typing import Any

from service.models.pickle_values import (
    BUILDERS,
    GlobalRef,
    Opaque,
    PickleContent,
    PickleRefused,
    is_class,
    is_dict,
)
from service.models.storage_types import STORAGES, StorageRef, TensorRef

_MAX_RANK = 64
_DEVICE = re.compile(r"[a-z]{1,16}(:[0-9]{1,4})?")
_TYPE = re.compile(r"[A-Za-z0-9_., ()\[\]]{1,100000}")
_RECORD = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def storage_of(parts: Any) -> StorageRef:
    """The storage that a persistent id names.

    Raises:
        PickleRefused: the id is not of the kind torch writes.
    """
    match parts:
        case ("storage", GlobalRef("torch", kind), str(key), str(device), int(count)) if (
            kind in STORAGES
            and _RECORD.fullmatch(key)
            and _DEVICE.fullmatch(device)
            and type(count) is int
            and count >= 0
        ):
            return StorageRef(kind, key, count)
    raise PickleRefused("it refers to a storage in a way torch does not")


def call(target: GlobalRef, arguments: tuple[Any, ...], weight: int, content: PickleContent) -> Any:
    """The value of a call; tensors and type names are noted in `content`.

    Args:
        target: what is called.
        arguments: with what.
        weight: of the arguments.
        content: of the pickle.

    Raises:
        PickleRefused: torch writes no such call.
    """
    if is_class(target) and len(arguments) == 1:  # an enumeration's member, by its value
        return Opaque("object", weight)
    made: Any = None
    subject: Any = (target.name, *arguments)
    match subject:
        case ("OrderedDict",):
            made = Opaque("dict")
        case ("complex", float(real), float(imaginary)):
            made = complex(real, imaginary)
        case ("device", str(device)) if _DEVICE.fullmatch(device):
            made = Opaque("device")
        case ("restore_type_tag", value, str(tag)) if _is_type(tag):
            content.types.add(tag)
            made = value
        case ("_rebuild_tensor_v2", StorageRef() as storage, offset, size, stride, bool(), hooks
        ) if is_dict(hooks):  # fmt: skip
            made = _tensor(content, storage, offset, size, stride)
        case ("_rebuild_qtensor", StorageRef() as storage, offset, size, stride, quantiser,
              bool(), hooks) if is_dict(hooks):  # fmt: skip
            _check_quantiser(quantiser, size)
            made = _tensor(content, storage, offset, size, stride)
        case (str(name), Opaque(kind="list") as value) if name in BUILDERS:
            made = value
    if made is None or is_class(target):
        raise PickleRefused(f"it calls `{target.dotted}` with arguments torch does not give it")
    return made


def _tensor(
    content: PickleContent, storage: StorageRef, offset: Any, size: Any, stride: Any
) -> TensorRef:
    if (
        not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
        or len(size) > _MAX_RANK
        or any(type(one) is not int or one < 0 for one in (offset, *size, *stride))
    ):
        raise PickleRefused(
            f"a tensor over `{storage.key}` has a shape, strides or an offset that cannot be"
        )
    found = TensorRef(storage, offset, size, stride)
    content.tensors.append(found)
    return found


def _is_type(tag: str) -> bool:
    depth = 0
    for character in tag:
        depth += (character in "[(") - (character in "])")
        if not 0 <= depth <= 32:
            return False
    return depth == 0 and _TYPE.fullmatch(tag) is not None


def _check_quantiser(quantiser: Any, size: Any) -> None:
    match quantiser:
        case (GlobalRef("torch", "per_tensor_affine"), float(), int()):
            return
        case (GlobalRef("torch", "per_channel_affine"), TensorRef() as scales, TensorRef() as zeros,
              int(axis)):  # fmt: skip
            if (
                isinstance(size, tuple)
                and 0 <= axis < len(size)
                and scales.size == (size[axis],)
                and zeros.size == (size[axis],)
            ):
                return
    raise PickleRefused("a quantised tensor has no scheme that torch writes")
