"""A device that ran out of memory, as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import OutOfMemory


@contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Inside the block torch's own error becomes the product's.

    Raises:
        OutOfMemory: the device ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the device ran out of memory: {str(error).splitlines()[0]}",
            hint="lower `batch_size`, or run on a device with more memory",
            where="device",
        ) from error
