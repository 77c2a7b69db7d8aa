r"""Multiply-accumulate operations of one sample.

torch's FlopCounterMode counts convolutions, matrix products and attention as they are
dispatched, two floating-point operations for each multiply-accumulate, hence MACs = FLOPs / 2.
Shapes are all that counts, so the program runs on the meta device, without arithmetic; one
whose control flow needs values runs on its real inputs. Fused kernels that the counter does not
know would count as nothing, so they are switched off while counting: flash attention (which then
runs as two batched products), and on real inputs oneDNN and cuDNN (recurrent layers then run as
matrix products).

Blalock et al. (2020) count the multiply-adds that are left when zeros are skipped. Every element of
a convolution's or product's weight takes part in equally many of them, so an operator with
:math:`m` MACs and a weight :math:`W` keeps :math:`m \, \|W\|_0 / |W|`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engine.calling import call, plain_execution
from engine.errors import EngineError
from engine.structure import at_batch_size, map_tensors, samples_in
from engine.tape import to_meta
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.meta import run_on_meta
from engine.torchscript.program import Program


def count_macs(program: Program, inputs: Sequence[Any]) -> int:
    """MACs per sample at batch size 1, or at the example's when the program takes no other.

    0 means that no convolution, matrix product or attention ran.
    """
    leading = samples_in(inputs)
    if leading != 1:
        try:
            return _count(program, at_batch_size(inputs, 1))
        except EngineError:
            # The batch size is baked in: count at the example's and share it out.
            return _count(program, inputs) // leading
    return _count(program, inputs)


def count_nonzero_macs(program: Program, inputs: Sequence[Any]) -> int | None:
    """MACs per sample without those of zeros in weights; None where only a real run can count.

    A weight is followed through transpositions and reshapes into the operator that reads it; one
    computed from others, or listed in a recurrent layer, counts as if it had no zeros.
    """
    leading = samples_in(inputs)
    for example, samples in ((at_batch_size(inputs, 1), 1), (inputs, leading)):
        visitor = _Nonzero(program)
        try:
            with _counting() as counter:
                visitor.counter = counter
                Interpreter(program, visitor).run(
                    [map_tensors(value, to_meta) for value in example]
                )
        except (EngineError, NotImplementedError, RuntimeError):
            continue
        return round(visitor.flops) // 2 // samples
    return None


def _count(program: Program, inputs: Sequence[Any]) -> int:
    try:
        with _counting() as counter:
            Interpreter(program, _OnMeta()).run([map_tensors(value, to_meta) for value in inputs])
    except (EngineError, NotImplementedError, RuntimeError):
        with (
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            _counting() as counter,
        ):
            call(program.twin().module, inputs)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    with (
        torch.no_grad(),
        plain_execution(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        yield counter


class _OnMeta(PlainVisitor):
    """Runs every operator for its shapes."""

    def __init__(self) -> None:
        self._scalars: dict[str, Tensor] = {}

    def tensor(self, name: str, tensor: Tensor) -> Tensor:
        """Scalars stay real: control flow and shape arithmetic read them."""
        if tensor.dim():
            return to_meta(tensor)
        # One copy for the whole run: the program may write to it and read it again.
        return self._scalars.setdefault(name, tensor.clone())

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """Shapes and types of the outputs."""
        return run_on_meta(instruction, arguments, products_by_torch=True)


_PASSING = frozenset(
    f"aten::{name}"
    for name in (
        "t", "transpose", "permute", "view", "reshape", "flatten", "unsqueeze", "squeeze",
        "contiguous", "detach", "to", "clone",
    )
)  # fmt: skip
"""A weight keeps its share of zeros through these."""

_ADDING = frozenset({"aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::addmv"})


class _Nonzero(_OnMeta):
    """Adds up the operations of every operator, times the share of non-zero weights it reads."""

    counter: FlopCounterMode

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.flops = 0.0
        self._parameters = frozenset(program.parameters()) | frozenset(program.constants())
        # By identity; the tensors are kept, so that no other takes the place of one that is gone.
        self._shares: dict[int, tuple[Tensor, float]] = {}
        self._placed: dict[str, Tensor] = {}

    def tensor(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor on the meta device, remembered with its share of non-zero elements."""
        if name not in self._placed:
            placed = super().tensor(name, tensor)
            if name in self._parameters and tensor.dim() >= 2 and tensor.numel():
                share = int(torch.count_nonzero(tensor)) / tensor.numel()
                self._shares[id(placed)] = (placed, share)
            self._placed[name] = placed
        return self._placed[name]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """Count, and follow weights to where they are read."""
        before = self.counter.get_total_flops()
        outputs = super().operator(instruction, arguments)
        # What is added to a product takes no part in its multiplications.
        factors = arguments[1:] if instruction.kind in _ADDING else arguments
        known = [
            self._shares[id(value)][1]
            for value in factors
            if isinstance(value, Tensor) and id(value) in self._shares
        ]
        added = self.counter.get_total_flops() - before
        self.flops += added * min(known, default=1.0)
        if instruction.kind in _PASSING and known and isinstance(outputs, Tensor):
            self._shares[id(outputs)] = (outputs, known[0])
        return outputs
