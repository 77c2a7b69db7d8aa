r"""Quantisation-aware training for static int8: rounding as the file will, while weights move.

What is trained is the prepared program (see `engine.torchscript.int8.preparing`), BatchNorm folded
into the layers before it, for its places are those that ranges belong to. Every value that becomes
integers in the file is rounded to its grid where it is computed, and its range follows the values;
weights of convolutions and linear layers are rounded channel by channel, straight-through (Jacob et
al. 2018, section 3; Krishnamoorthi 2018, section 3.3, with BatchNorm frozen from the start).

Rounding cuts values off at the end of their range, the file only at twice that (it keeps integers
to spare), so what training sees is the harder of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.quantisation.int8.lowerings import StaticInt8
from engine.quantisation.int8.ranges import STEPS, ActivationRange
from engine.quantisation.int8.weights import code_channels
from engine.quantisation.reparametrisation import Reparametrisation
from engine.quantisation.straight_through import StraightThrough
from engine.torchscript.batch_norms import attribute_paths
from engine.torchscript.fake_quantise import Rounded, grids_of, with_fake_quantise
from engine.torchscript.instructions import walk
from engine.torchscript.int8.places import operator_names
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.static import Plan, plan_static
from engine.torchscript.program import Program

_BY_CHANNEL = ("linear_", "conv1d_", "conv2d_", "conv3d_", "_convolution_", "convolution_")
"""Operators that read a weight with its output channels first."""


@dataclass(frozen=True)
class Int8Training:
    """A program to train for static int8.

    Attributes:
        program: prepared, with its values rounded.
        rules: of the weights that are rounded.
        lowering: whose ranges the training begins with.
    """

    program: Program
    rules: Mapping[str, Reparametrisation]
    lowering: StaticInt8
    _plain: Program
    _points: Mapping[str, Rounded]
    _names: Mapping[str, str]

    @classmethod
    def of(cls, program: Program, lowering: StaticInt8) -> Int8Training:
        """Args:
        program: in floating point; it is left as it is.
        lowering: calibrated on it.
        """
        plain = prepared(program)
        plan = plan_static(plain, lowering.excluded)
        points: dict[str, Rounded] = {}
        names: dict[str, str] = {}
        by_value: dict[int, str] = {}
        for place, at in plan.places.items():
            known = lowering.ranges.get(place)
            if known is None or at.value is None:
                continue
            # A value that two places see is rounded once.
            name = by_value.setdefault(at.value, place.replace(".", "_operand_"))
            names[place] = name
            low, high = -known.zero_point * known.scale, (STEPS - known.zero_point) * known.scale
            points.setdefault(name, Rounded(at.value, low, high, smallest=0, largest=STEPS))
        fake = with_fake_quantise(plain, points)
        return cls(fake, _rules(plain, plan), lowering, plain, points, names)

    def finished(self, trained: Program) -> tuple[Program, StaticInt8]:
        """The program in floating point and how it is lowered, after training.

        Args:
            trained: what training made of `program`.
        """
        plain, held = self._plain.twin(), trained.attributes()
        with torch.no_grad():
            for name, tensor in plain.attributes().items():
                tensor.copy_(held[name])
        grids = grids_of(trained, self._points)
        ranges = dict(self.lowering.ranges)
        for place, name in self._names.items():
            grid = grids[name]
            ranges[place] = ActivationRange.of(grid.low, grid.high, ranges[place].dims)
        return plain, replace(self.lowering, ranges=ranges)


def _rules(plain: Program, plan: Plan) -> dict[str, Reparametrisation]:
    """How weights are rounded that the file stores with a scale for each of their rows."""
    paths, parameters = attribute_paths(plain.block), plain.parameters()
    instructions = list(walk(plain.block))
    found: dict[str, Reparametrisation] = {}
    for one, name in zip(instructions, operator_names(i.kind for i in instructions), strict=True):
        if name not in plan.sites or not name.startswith(_BY_CHANNEL):
            continue
        path = paths.get(one.inputs[1], "")
        if path in parameters:
            found[path] = StraightThrough(_rounding(path))
    return found


def _rounding(name: str) -> Callable[[Tensor], Tensor]:
    def rounded(weight: Tensor) -> Tensor:
        return code_channels(weight, name).decode().to(weight)

    return rounded
