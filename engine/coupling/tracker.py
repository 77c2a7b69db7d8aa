"""Carries labels along the tape, step by step, through the registered rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from engine.coupling.heads import Cuts
from engine.coupling.labels import Dimension, Labels, LabelSpace, Reason, principal_row
from engine.coupling.zeros import Zeros
from engine.tape import Step, Tape, TensorValue, flatten

Role = Literal["output", "input", "vector"]
Rule = Callable[["Tracker", Step], None]

_RULES: dict[str, Rule] = {}
_FIXED_OUTPUT = "the outputs of the model keep their shape"


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, by name without overload and in-place underscore."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            name = kind if "::" in kind else f"aten::{kind}"
            if name in _RULES:
                raise ValueError(f"{name} has a rule already")
            _RULES[name] = function
        return function

    return register


def registered_operators() -> list[str]:
    """Names of all operators with a rule of their own."""
    return sorted(_RULES)


class Tracker:
    """Labels of every tensor of one tape.

    Attributes:
        space: the unions.
        roles: what part a labelled weight dimension plays, by the start of its label range.
        mixing: for operators that mix channels, `layer (operator)` and the labels they mix.
        heads: for tensors that a cut made, their dimension of heads (see `engine.coupling.heads`).
        whole_heads: labels stay on the dimension of heads; otherwise never.
        cuts: where to note cuts and lay probes, or None when heads are known.
        zeros: which activations are not zero where removed channels are.
        head_labels: labels that arrived at a batch dimension of a product of activations.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        heads: Mapping[int, int] | None = None,
        whole_heads: bool = False,
    ) -> None:
        self.tape = tape
        self.cuts = Cuts() if heads is None else None
        self.heads: Mapping[int, int] = heads or {}
        self.whole_heads = whole_heads
        self.head_labels: list[Labels] = []
        self.space = LabelSpace()
        self.roles: dict[int, Role] = {}
        self.mixing: list[tuple[str, Labels]] = []
        self.zeros = Zeros()
        self._labels: dict[int, list[Dimension]] = {}
        self._step: Step | None = None

    def run(self) -> None:
        """Walk the whole tape."""
        for step in self.tape.steps:
            self._step = step
            handler = _RULES.get(step.kind)
            if handler is None and step.instruction.operator is not None:
                handler = _RULES["aten::add"] if step.instruction.operator.pointwise else None
            if handler is not None:
                handler(self, step)
            else:
                self.unknown(step)
            self.zeros.follow(step)
        # Between methods, "tied to something of fixed size" would hide what it is tied to.
        several = bool(self.tape.exported)
        for value in reversed(self.tape.outputs) if several else self.tape.outputs:
            for labels in self.merged_labels(value):
                if labels is not None:
                    reason = Reason("output", self._fixed(value))
                    self.space.freeze(labels, reason, foremost=several)

    def labels(self, value: TensorValue) -> list[Dimension]:
        """One label per index of each dimension; a weight gets fresh ones when first seen.

        For rules that do not expect merged dimensions: of those one row stays, the other rows
        are frozen.
        """
        return [self.single(value, dim) for dim in range(len(value.shape))]

    def single(self, value: TensorValue, dim: int) -> Dimension:
        """One label per index of one dimension; see `labels`."""
        labels = self.merged_labels(value)[dim]
        if labels is not None and labels.ndim > 1:
            labels = self._single(labels)
            self._labels[value.number][dim] = labels
        return labels

    def _single(self, labels: Labels) -> Labels:
        keep = principal_row(labels)
        if self._step is not None:
            others = np.delete(labels, keep, axis=0).ravel()
            text = "merged into one dimension with other channels"
            self.freeze(others, self._step, text)
        row: Labels = labels[keep]
        return row

    def merged_labels(self, value: TensorValue) -> list[Dimension]:
        """Labels per dimension, with all rows of merged dimensions."""
        known = self._labels.get(value.number)
        if known is None:
            known = [None] * len(value.shape)
            if value.name is not None and value.dtype.is_floating_point:
                known = [
                    self.space.allocate(value.name, dim, size) if size > 1 else None
                    for dim, size in enumerate(value.shape)
                ]
            self._labels[value.number] = known
        return list(known)

    def all_labels(self) -> dict[int, list[Dimension]]:
        """Labels of every tensor seen, by number."""
        return self._labels

    def assign(self, value: object, labels: list[Dimension]) -> None:
        """Give an output its labels; one that exists already (in-place) is united with them."""
        if not isinstance(value, TensorValue):
            return
        if len(labels) != len(value.shape):
            raise AssertionError(f"{len(labels)} label vectors for shape {value.shape}")
        if value.number not in self._labels:
            self._labels[value.number] = labels

    def unite(self, left: Dimension, right: Dimension, step: Step, text: str) -> None:
        """The indices of two dimensions correspond one to one."""
        if left is None and right is None:
            return
        # Only shown for labels that meet something fixed: an input, an output, a baked size.
        reason = self.reason(step, f"tied to something of fixed size ({text})")
        if left is None or right is None:
            self.space.freeze(left if right is None else right, reason)  # type: ignore[arg-type]
            return
        if left.shape != right.shape:
            left, right = self._flat(left), self._flat(right)
        self.space.unite(left, right, reason)

    def _flat(self, labels: Labels) -> Labels:
        return labels if labels.ndim == 1 else self._single(labels)

    def freeze(self, labels: Dimension, step: Step, text: str, *, report: bool = True) -> None:
        """Nothing along this dimension can be removed."""
        if labels is not None:
            self.space.freeze(labels, self.reason(step, text, report=report))

    def mark(self, labels: Dimension, role: Role) -> None:
        """Note what part a weight dimension plays; the first note stays."""
        if labels is None or not labels.size:
            return
        first = int(labels.flat[0])
        if first == 0:
            positive = labels[labels > 0]
            if not positive.size:
                return
            first = int(positive[0])
        self.roles.setdefault(self.space.range_of(first).start, role)

    def mixes(self, step: Step, labels: Dimension) -> None:
        """The operator combines the values along this dimension without a weight for each."""
        if labels is not None:
            self.mixing.append((f"{step.layer()} ({step.kind})", labels[labels > 0]))

    def unknown(self, step: Step) -> None:
        """No rule: freeze everything the operator reads, and say so."""
        for value in step.tensors():
            for labels in self.labels(value):
                self.freeze(labels, step, f"no rule for operator {step.kind}")
        for value in flatten(step.outputs):
            self.assign(value, [None] * len(value.shape))

    def reason(self, step: Step, text: str, *, report: bool = True) -> Reason:
        """A reason at this step."""
        return Reason(step.kind, text, report)

    def _fixed(self, output: TensorValue) -> str:
        method = self.tape.exported.get(output.number)
        if method is None:
            return _FIXED_OUTPUT
        return (
            f"what the exported method `{method}` gives keeps its shape "
            f"(as `_{method}` it would be private, and free)"
        )
