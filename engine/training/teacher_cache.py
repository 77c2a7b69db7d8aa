"""What a teacher says of every sample, computed once and kept in a file.

A teacher in evaluation mode says the same of a sample in every epoch, unless random transforms
change the sample, the program draws or remembers, or its arithmetic depends on what else is in the
batch. The file holds row i for sample i, written in the order of the split in batches of one size:
so what it holds depends on the teacher, the data and that size alone, and a resumed job that
writes it anew has the same bits. It is mapped, not read: only what a batch asks for is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data.batches import Batch


@dataclass(frozen=True)
class TeacherCache:
    """The mapped file.

    Attributes:
        rows: scores as they are stored, [samples, ...].
        dtype: of the teacher; rows are given in it.
        path: of the file.
    """

    rows: Tensor
    dtype: torch.dtype
    path: Path

    def scores(self, samples: Tensor, device: str) -> Tensor:
        """The scores of some samples, in the teacher's own dtype.

        Args:
            samples: positions in the split, int64.
            device: where they are wanted.
        """
        return self.rows.index_select(0, samples).to(device=device, dtype=self.dtype)


@dataclass(frozen=True)
class KeptCache:
    """The file of a job, and what it is of."""

    of: tuple[Any, ...]
    cache: TeacherCache


def write_cache(
    path: Path,
    made: Iterator[Batch],
    score: Callable[[Batch], Tensor],
    *,
    samples: int,
    stored: torch.dtype | None,
) -> TeacherCache:
    """Ask the teacher about every sample.

    Args:
        path: of the file; what is there is replaced.
        made: batches in the order of the split.
        score: asks the teacher; rows are those of the batch.
        samples: of the split.
        stored: dtype in the file; None for that of the teacher.

    Raises:
        OSError: the file cannot be written, or not in full; nothing of it is left.
    """
    shape: tuple[int, ...] = ()
    dtype = kept = torch.float32
    # A new file, not the old one emptied: who has mapped that may still read it.
    path.unlink(missing_ok=True)
    try:
        # Written before it is mapped: a disk that is full is an error here and a signal there.
        with path.open("wb") as file:
            for batch in made:
                scores = score(batch)
                shape, dtype = tuple(scores.shape[1:]), scores.dtype
                kept = stored or dtype
                plain = scores.to(device="cpu", dtype=kept).contiguous()
                file.write(plain.view(torch.uint8).numpy().tobytes())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    total = samples * torch.Size(shape).numel()
    mapped = torch.from_file(str(path), shared=False, size=total, dtype=kept)
    return TeacherCache(mapped.view(samples, *shape), dtype, path)
