"""Files of an archive, and what they give as samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from secateur.resources import TensorInfo


@dataclass(frozen=True)
class File:
    """A file in an archive.

    Attributes:
        name: with its folders.
        size: unpacked.
        head: gives its first bytes.
        start: where its bytes begin in the archive, where they lie there as they are.
    """

    name: str
    size: int
    head: Callable[[], IO[bytes]]
    start: int | None


@dataclass(frozen=True)
class Content:
    """The tensors that a file gives, and the samples of every split."""

    tensors: list[TensorInfo]
    splits: dict[str, int]
