"""Multiply-accumulate operations of one sample.

torch's FlopCounterMode counts convolutions, matrix products and attention as they are
dispatched, two floating-point operations for each multiply-accumulate, hence MACs = FLOPs / 2.
Shapes are all that counts, so the program runs on the meta device, without arithmetic; one
whose control flow needs values runs on its real inputs. Fused kernels that the counter does not
know would count as nothing, so they are switched off while counting: flash attention (which then
runs as two batched products), and on real inputs oneDNN and cuDNN (recurrent layers then run as
matrix products).
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
