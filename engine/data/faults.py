"""Faults that service and engine both know, as errors of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from secateur.data_files.faults import DataFault

from engine.errors import DatasetInvalid


@contextmanager
def data_faults() -> Iterator[None]:
    """Faults of the files of a dataset end the job.

    Raises:
        DatasetInvalid: there was one.
    """
    try:
        yield
    except DataFault as fault:
        title = fault.message[:1].lower() + fault.message[1:].rstrip(".")
        raise DatasetInvalid(title, hint=fault.hint, where=fault.where) from fault
