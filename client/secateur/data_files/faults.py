"""What is wrong with the files of a dataset."""

from __future__ import annotations


class DataFault(ValueError):
    """The files do not make a dataset.

    Attributes:
        message: what is wrong.
        hint: what to do.
        where: the file, folder or column at fault.
    """

    def __init__(self, message: str, *, hint: str, where: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
