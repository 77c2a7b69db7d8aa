"""A machine or a device that ran out of memory, as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.out_of_memory import is_out_of_memory, out_of_memory


@contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Inside the block torch's own error becomes the product's.

    Raises:
        OutOfMemory: the device ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, doing="the job ran", where="device") from error
