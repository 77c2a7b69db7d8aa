"""Branches that another size of the input takes.

A condition that only sizes of weights decide falls the same way for every input; one that asks a
size of the input may send another image through a branch that the example did not show. That
branch must find, and leave, what it would have without the removal:

1. where it does nothing to channels (element by element, pooling, zero padding of pixels), what
   it gives corresponds to what the branch that ran gives, index by index: they are united;
2. everything else it reads, weights or values, stays whole, and so does what it gives;
3. a branch that raises gives nothing, and one for inputs with another number of dimensions that
   works element by element, reorders dimensions, or adds or drops such of one element, harms
   nothing;
4. a loop whose rounds a size of the input counts may run more often: what it carries from one
   round to the next corresponds; where the example ran no round, case 2 holds for its body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.coupling.labels import Reason
from engine.coupling.tracker import Tracker
from engine.tape import TensorValue
from engine.torchscript.dependence import SHAPE_READERS, writes_first
from engine.torchscript.instructions import Block, Instruction, walk

_TEXT = "another size of the input takes a branch that the example does not show"
_SAME_CHANNELS = frozenset(
    f"aten::{name}"
    for name in ("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach",
                 "to", "relu6", "hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "celu",
                 "selu", "float", "double", "half")
)  # fmt: skip
_TRAILING = frozenset(
    f"aten::{name}{rank}d"
    for name in (
        "max_pool",
        "avg_pool",
        "adaptive_avg_pool",
        "adaptive_max_pool",
        "upsample_nearest",
        "_upsample_nearest_exact",
        "upsample_bilinear",
        "upsample_bicubic",
        "upsample_linear",
        "upsample_trilinear",
        "reflection_pad",
        "replication_pad",
    )
    for rank in (1, 2, 3)
) | {
    "aten::_upsample_bilinear2d_aa",
    "aten::_upsample_bicubic2d_aa",
    "aten::_upsample_lanczos2d_aa",
}
"""Operators that resample the trailing one, two or three dimensions."""
_ADAPTS = frozenset(
    {"aten::unsqueeze", "aten::squeeze", "aten::transpose", "aten::permute", "aten::contiguous"}
)
_PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})


@dataclass
class _Found:
    """What the tensors of a block are made of, and what from outside is touched.

    Attributes:
        sources: a tensor that has its channels from another one has that as its source; any other
            that the block makes has None.
        touched: values from outside.
        unset: values that stand for nothing, where a block does not get as far.
    """

    sources: dict[int, int | None] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    unset: set[int] = field(default_factory=set)

    def source(self, value: int) -> int | None:
        return self.sources.get(value, value)


def tuple_places(
    program_block: Block, constants: Mapping[int, object]
) -> dict[int, tuple[int, object]]:
    """For values that are taken out of a tuple or put into one, the tuple and the position."""
    places: dict[int, tuple[int, object]] = {}
    for instruction in walk(program_block):
        if instruction.kind == "prim::TupleIndex":
            at = constants.get(instruction.inputs[1])
            places[instruction.outputs[0]] = instruction.inputs[0], at
        elif instruction.kind == "prim::TupleUnpack":
            own = instruction.inputs[0]
            places.update((out, (own, i)) for i, out in enumerate(instruction.outputs))
        elif instruction.kind == "prim::TupleConstruct":
            for i, member in enumerate(instruction.inputs):
                places.setdefault(member, (instruction.outputs[0], i))
    return places


def adapts_rank(block: Block, taken_out: Mapping[int, tuple[int, object]]) -> bool:
    """Whether a block only works element by element, and reorders, adds or drops dimensions.

    Tuples are put together again in the order they came in.

    Args:
        taken_out: see `tuple_places`.
    """
    places = dict(taken_out)
    for instruction in walk(block):
        kind, given, made = instruction.kind, instruction.tensor_inputs, instruction.tensor_outputs
        if kind in SHAPE_READERS or not (given or made):
            continue
        if kind == "prim::TupleConstruct":
            found = [places.get(own) for own in instruction.inputs]
            first = found[0]
            if first is None or found != [(first[0], i) for i in range(len(found))]:
                return False
        elif kind.startswith("prim::"):
            continue
        else:
            pointwise = instruction.operator is not None and instruction.operator.pointwise
            if given != instruction.inputs[:1] or not (pointwise or kind in _ADAPTS):
                return False
            if given[0] in places:
                places[made[0]] = places[given[0]]
    return True


class Untaken:
    """Follows the branches that did not run.

    Args:
        behind: the tensors of the tape at graph values, or nearest before them.
        constants: values of the graph's constants.
        taken_out: see `tuple_places`.
        lists: operands of the graph's lists.
        freeze: keeps values, and all that blocks read, whole.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        behind: Callable[[Iterable[int]], list[TensorValue]],
        constants: Mapping[int, object],
        taken_out: Mapping[int, tuple[int, object]],
        lists: dict[int, Sequence[int]],
        freeze: Callable[[Instruction, str, Iterable[int], Iterable[Block]], None],
    ) -> None:
        self._tracker = tracker
        self._behind = behind
        self._constants = constants
        self.taken_out = taken_out
        self._lists = lists
        self._freeze = freeze

    def branch(self, decision: Instruction, block: Block) -> None:
        """Cases 1 and 2 for one block of an If."""
        found = _Found()
        self._follow(decision, block, found)
        for output, inner in zip(decision.outputs, block.outputs, strict=True):
            if output not in decision.tensor_outputs:
                continue
            source = found.sources.get(inner, inner)
            if source is None:
                found.touched.add(output)
            elif not self._unite(decision, self._behind([output]), source):
                found.touched.update((output, source))
        self._freeze(decision, _TEXT, found.touched, [])

    def loop(self, decision: Instruction, *, ran: bool) -> None:
        """Case 4."""
        body = decision.blocks[0]
        if not ran:
            carried = [*decision.inputs[2:], *decision.outputs]
            self._freeze(decision, _TEXT, carried, [body])
            return
        for position, output in enumerate(decision.outputs):
            first, inside = decision.inputs[position + 2], body.inputs[position + 1]
            rounds = self._behind([first, inside, body.outputs[position + 1], output])
            if any(value.shape != rounds[0].shape for value in rounds):
                self._freeze(decision, _TEXT, [first, inside, output], [])
            else:
                for value in rounds[1:]:
                    self._correspond(decision, rounds[0], value)

    def _follow(self, decision: Instruction, block: Block, found: _Found) -> None:
        for instruction in block.instructions:
            if instruction.kind in SHAPE_READERS or instruction.kind == "prim::GetAttr":
                continue
            given = instruction.tensor_inputs
            if instruction.kind == "prim::If":
                self._choice(decision, instruction, found)
                continue
            if instruction.kind == "prim::Uninitialized":
                found.unset.update(instruction.outputs)
                continue
            if instruction.kind == "prim::Loop":
                body = instruction.blocks[0]
                carried = zip(instruction.outputs, body.outputs[1:], strict=True)
                given += tuple(own for out, own in carried if out in instruction.tensor_outputs)
                for inner in walk(body):
                    if inner.kind not in SHAPE_READERS:
                        given = (*given, *inner.tensor_inputs)
            elif given == instruction.inputs[:1] and self._same_channels(
                decision, instruction, found
            ):
                found.sources[instruction.outputs[0]] = found.source(given[0])
                continue
            sources = (found.source(value) for value in given)
            found.touched.update(value for value in sources if value is not None)
            found.sources.update(dict.fromkeys(instruction.tensor_outputs))

    def _choice(self, decision: Instruction, instruction: Instruction, found: _Found) -> None:
        """An If inside: any of its blocks may run but those that raise."""
        blocks = [
            block
            for block in instruction.blocks
            if all(inner.kind != "prim::RaiseException" for inner in block.instructions)
        ]
        for block in blocks:
            self._follow(decision, block, found)
        for position, output in enumerate(instruction.outputs):
            if output not in instruction.tensor_outputs:
                continue
            inner = {block.outputs[position] for block in blocks} - found.unset
            sources = {found.source(value) for value in inner}
            if not inner:
                found.unset.add(output)
            elif len(sources) == 1:
                found.sources[output] = sources.pop()
            else:
                found.touched.update(value for value in sources if value is not None)
                found.sources[output] = None

    def _same_channels(
        self, decision: Instruction, instruction: Instruction, found: _Found
    ) -> bool:
        """Whether every index of every dimension stays what it is, pixels apart."""
        operator, kind = instruction.operator, instruction.kind
        if operator is None or len(instruction.outputs) != 1:
            return False
        source = found.source(instruction.inputs[0])
        if source is None:
            return True  # made inside, where nothing is pruned
        plain = kind[:-1] if writes_first(instruction) else kind
        if operator.pointwise or plain in _SAME_CHANNELS:
            return True
        if plain in _TRAILING:
            self._keep_trailing(decision, source, int(plain.removesuffix("_aa")[-2]))
            return True
        return plain in _PADS and self._pads_pixels(decision, instruction, source)

    def _pads_pixels(self, decision: Instruction, instruction: Instruction, source: int) -> bool:
        amounts = self._lists.get(instruction.inputs[1])
        if amounts is None:
            return False
        # From the last dimension backwards, two numbers for each.
        moved = [
            place // 2 + 1
            for place, amount in enumerate(amounts)
            if self._constants.get(amount) != 0
        ]
        for value in self._behind([source]):
            for back in moved:
                if back <= len(value.shape):
                    self._keep(decision, value, len(value.shape) - back)
        return True

    def _keep_trailing(self, decision: Instruction, source: int, count: int) -> None:
        for value in self._behind([source]):
            if len(value.shape) == count + 2:  # with others it would raise
                for dim in range(2, len(value.shape)):
                    self._keep(decision, value, dim)

    def _keep(self, decision: Instruction, value: TensorValue, dim: int) -> None:
        labels = self._tracker.merged_labels(value)[dim]
        if labels is not None:
            self._tracker.space.freeze(labels, self._reason(decision))

    def _unite(self, decision: Instruction, given: list[TensorValue], source: int) -> bool:
        """What the branch that ran gave with what this one would give; False where they differ."""
        for value in given:
            for other in self._behind([source]):
                if len(value.shape) != len(other.shape):
                    return False
                self._correspond(decision, value, other)
        return True

    def _correspond(self, decision: Instruction, one: TensorValue, other: TensorValue) -> None:
        reason = self._reason(decision)
        labels = self._tracker.merged_labels(one), self._tracker.merged_labels(other)
        for left, right in zip(*labels, strict=True):
            if left is None and right is None:
                continue
            if left is None or right is None or left.shape != right.shape:
                for own in (left, right):
                    if own is not None:
                        self._tracker.space.freeze(own, reason)
            else:
                self._tracker.space.unite(left, right, reason)

    def _reason(self, decision: Instruction) -> Reason:
        return Reason(decision.kind, _TEXT)
