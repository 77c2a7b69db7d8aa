r"""Processes that train one program together, each on its part of every batch.

The mean loss over a batch of n samples, cut into parts of :math:`n_1 .. n_N`, is

.. math:: L = \sum_r \frac{n_r}{n} L_r = \frac{1}{N} \sum_r \frac{N n_r}{n} L_r

with :math:`L_r` the mean over part r. `DistributedDataParallel` (Li et al. 2020, "PyTorch
Distributed", VLDB 13) gives every process the plain mean of the gradients of all N, so process r
weighs its loss by :math:`N n_r / n` and all end with the gradient of L: the step of one process
with the same batch, up to rounding. A micro-batch with fewer than two samples for each process is
not cut: all of them compute the whole of it, weight 1, and one counts it.

Gradients are exchanged while the way back goes on. A process that failed in its midst would leave
the others waiting, so where that is to be expected all find their gradients `apart`, say how it
went, and `exchange` them when nobody failed.

What acts on a batch as a whole acts on each part here: batch statistics of BatchNorm (the running
ones are those of the first process, which the others are given before every step), and the draws
of dropout, which are seeded by step and process. A loss that is a mean over other things than
samples (tokens that are not ignored, labelled rows) is weighed by samples all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from engine.errors import TrainingDiverged
from engine.torchscript.program import Program

T = TypeVar("T")
_LEAST = 2
_NOT_ADDED = "teacher"
"""What a judge holds of a teacher's state is no sum."""


@dataclass(frozen=True)
class Part:
    """What one process does of a micro-batch.

    Attributes:
        start: of its samples in the order of the epoch.
        stop: behind the last.
        weight: of its mean loss, beside the share of the micro-batch in the step.
        counted: whether it counts what it saw; another process does where not.
    """

    start: int
    stop: int
    weight: float = 1.0
    counted: bool = True

    @property
    def rows(self) -> tuple[int, int]:
        """Its samples, as a half-open range."""
        return self.start, self.stop


class World(Protocol):
    """The processes of a run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Its number, from 0; the first one speaks for all."""

    @property
    def size(self) -> int:
        """How many there are."""

    def part(self, start: int, stop: int) -> Part:
        """Its part of the samples of a micro-batch."""

    def joined(self, program: Program) -> Callable[..., Any]:
        """Forward of the program; after its backward, gradients are the mean over all processes."""

    def apart(self, forward: Callable[..., Any]) -> AbstractContextManager[None]:
        """Inside, gradients of `forward` are added up and not exchanged yet."""

    def exchange(self, forward: Callable[..., Any]) -> None:
        """The mean over all processes of gradients that were all found `apart`."""

    def share_buffers(self, forward: Callable[..., Any]) -> None:
        """Give the others the first process's buffers, as a step that is not `apart` begins."""

    def agree(self, decision: bool) -> bool:
        """What the first process decided; the others' own does not count."""

    def said(self, words: str) -> str:
        """The words of the first process that has any; all must ask."""

    def told(self, make: Callable[[], T]) -> T:
        """What the first process made, which the others wait for.

        Raises:
            TrainingDiverged: it raised that; so do all of them.
        """

    def summed(self, sums: dict[str, Any]) -> dict[str, Any]:
        """Tensors and numbers added up over all processes; the teacher's state stays as it is."""

    def own(self, sums: dict[str, Any]) -> dict[str, Any]:
        """Sums over all processes as one of them takes them up: the first all, the others zero."""


class Alone:
    """The world of a run in one process."""

    rank = 0
    size = 1

    def part(self, start: int, stop: int) -> Part:
        """All of it."""
        return Part(start, stop)

    def joined(self, program: Program) -> Callable[..., Any]:
        """The program itself."""
        return program.module

    def apart(self, forward: Callable[..., Any]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing is exchanged anyway."""
        return nullcontext()

    def exchange(self, forward: Callable[..., Any]) -> None:
        """They are its own."""

    def share_buffers(self, forward: Callable[..., Any]) -> None:
        """They are its own."""

    def agree(self, decision: bool) -> bool:
        """Its own."""
        return decision

    def said(self, words: str) -> str:
        """Its own."""
        return words

    def told(self, make: Callable[[], T]) -> T:
        """Its own."""
        return make()

    def summed(self, sums: dict[str, Any]) -> dict[str, Any]:
        """Its own."""
        return sums

    def own(self, sums: dict[str, Any]) -> dict[str, Any]:
        """All."""
        return sums


@dataclass(frozen=True)
class Processes:
    """The world of one of several processes, over torch's default process group.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        device: of this process.
    """

    rank: int
    size: int
    device: str = "cpu"

    @classmethod
    def here(cls, device: str) -> Processes:
        """The world of this process."""
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    def part(self, start: int, stop: int) -> Part:
        """Parts differ by at most one sample."""
        samples = stop - start
        if samples < _LEAST * self.size:
            return Part(start, stop, counted=self.rank == 0)
        first = start + samples * self.rank // self.size
        last = start + samples * (self.rank + 1) // self.size
        return Part(first, last, (last - first) * self.size / samples)

    def joined(self, program: Program) -> Callable[..., Any]:
        """See `World`.

        A program may have parameters that the outputs of a step do not depend on, so each
        backward looks for them.
        """
        devices = None if self.device == "cpu" else [torch.device(self.device)]
        return DistributedDataParallel(
            program.module, device_ids=devices, find_unused_parameters=True
        )

    def apart(self, forward: Callable[..., Any]) -> AbstractContextManager[None]:
        """See `World`; `forward` is what `joined` gave."""
        return _joined(forward).no_sync()

    @torch.no_grad()
    def exchange(self, forward: Callable[..., Any]) -> None:
        """See `World`; `forward` is what `joined` gave.

        A parameter that some processes have a gradient of gets one in all.
        """
        moved = [held for held in _joined(forward).parameters() if held.requires_grad]
        found = torch.tensor([held.grad is not None for held in moved], dtype=torch.int32)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        for held, somewhere in zip(moved, found.tolist(), strict=True):
            if somewhere:
                mine = torch.zeros_like(held) if held.grad is None else held.grad
                whole = mine.div_(self.size).contiguous()
                distributed.all_reduce(whole)
                held.grad = mine.copy_(whole)
        # The next step shares buffers, as it does behind a step that exchanged on its way.
        _joined(forward).require_forward_param_sync = True

    @torch.no_grad()
    def share_buffers(self, forward: Callable[..., Any]) -> None:
        """See `World`; `forward` is what `joined` gave."""
        for held in _joined(forward).buffers():
            shared = held.contiguous()
            distributed.broadcast(shared, src=0)
            held.copy_(shared)
        # Otherwise the forward of a step that begins anew in one process would wait for the others.
        _joined(forward).require_forward_param_sync = False

    def agree(self, decision: bool) -> bool:
        """See `World`."""
        # By way of the CPU, for the answer is needed there.
        said = torch.tensor(int(decision))
        distributed.broadcast(said, src=0)
        return bool(said)

    def said(self, words: str) -> str:
        """See `World`."""
        heard: list[str | None] = [None] * self.size
        distributed.all_gather_object(heard, words)
        return next((one for one in heard if one), "")

    def told(self, make: Callable[[], T]) -> T:
        """See `World`. What is told is pickled between the processes of one job."""
        held: list[Any] = [None, None]
        if self.rank == 0:
            try:
                held[0] = make()
            except TrainingDiverged as error:
                held[1] = {"title": error.title, "hint": error.hint, "where": error.where}
        distributed.broadcast_object_list(held, src=0)
        if held[1] is not None:
            raise TrainingDiverged(**held[1])
        told: T = held[0]
        return told

    def summed(self, sums: dict[str, Any]) -> dict[str, Any]:
        """See `World`."""
        return {
            key: self._sum(value) if key != _NOT_ADDED else value for key, value in sums.items()
        }

    def own(self, sums: dict[str, Any]) -> dict[str, Any]:
        """See `World`."""
        if self.rank == 0:
            return sums
        return {key: _nought(value) if key != _NOT_ADDED else value for key, value in sums.items()}

    def _sum(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            total = value.clone()
            distributed.all_reduce(total)
            return total
        if isinstance(value, int | float) and not isinstance(value, bool):
            kind = torch.int64 if isinstance(value, int) else torch.float64
            return self._sum(torch.tensor(value, dtype=kind)).item()
        if isinstance(value, Mapping):
            return {key: self._sum(item) for key, item in value.items()}
        return value


def _joined(forward: Callable[..., Any]) -> DistributedDataParallel:
    if not isinstance(forward, DistributedDataParallel):
        raise TypeError("the forward of another world")
    return forward


def _nought(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return type(value)(0)
    if isinstance(value, Mapping):
        return {key: _nought(item) for key, item in value.items()}
    return value
