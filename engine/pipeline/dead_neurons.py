"""Neurons and filters without input or output left go physically (Han et al. 2015, section 3.4).

After element pruning a neuron may have lost all the weights it reads, or all that read it. The
second says nothing to anyone and goes as it is. The first says the same for every sample; what it
says moves into the bias of those that read it (see `engine.coupling.readers`), where there is
one, and then it goes too. Both leave others without input or output, so it is done until none is
left. Each removal carries the certificate of any other, and beyond it the result is compared
with the program from before: to 1e-9 in float64 where no constant moved, to the rounding of the
weights' type where one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from secateur.recipe import PruneStage
from secateur.report import Certificate

from engine.calling import copies
from engine.certify import TOLERANCE, noisy, relative_error
from engine.compaction import compact
from engine.compaction.conflict import CompactionConflict
from engine.comparison import same_start
from engine.coupling import Coupling, couple
from engine.coupling.readers import Flags, Readers, constant_of, find_readers
from engine.errors import CertificateFailed
from engine.masks import Masks
from engine.pipeline.prune import PlannedChannels, certified, compact_masks
from engine.scores.groups import group_keys
from engine.selection.channels import ChannelPlan, Originals
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.precision import comparison_tolerance, in_float64
from engine.torchscript.program import Program


@dataclass(eq=False)
class RemovedDead:
    """What is left, and what went.

    Attributes:
        program: without dead neurons; the given one where there are none.
        masks: of the program.
        by_group: how many went of each group of coupled channels.
        certificates: one for each pass.
        folded: how many of them left a constant in a bias.
    """

    program: Program
    masks: Masks
    by_group: dict[str, int] = field(default_factory=dict)
    certificates: list[Certificate] = field(default_factory=list)
    folded: int = 0


def remove_dead(
    program: Program, masks: Masks, stage: PruneStage, inputs: Sequence[Any]
) -> RemovedDead:
    """Take out what has no input or no output left; excluded layers stay whole.

    Args:
        program: after element pruning.
        masks: that hold in it.
        stage: the element stage, for what it excludes.
        inputs: the example.

    Raises:
        CertificateFailed: the result computes something else.
    """
    done = RemovedDead(program, masks)
    while True:
        before, folded = done.program, done.folded
        if not _one_pass(done, stage, inputs):
            return done
        _compare(before, done.program, inputs, exact=done.folded == folded)


def _one_pass(done: RemovedDead, stage: PruneStage, inputs: Sequence[Any]) -> bool:
    coupling = couple(done.program, copies(inputs), exclude=stage.exclude)
    if not coupling.component_count:
        return False
    joint = coupling.methods.join(done.program)
    readers = find_readers(joint, coupling)
    constants = _measured(joint, coupling, readers)
    barred = np.zeros(coupling.component_count, bool)
    while True:
        dead, moved = _dead(readers, constants, barred)
        removed = _one_of_each_stays(coupling, dead)
        if not removed.size:
            return False
        gone = np.zeros_like(dead)
        gone[removed] = True
        folded = _folded(done.program, readers, constants, gone)
        try:
            smaller = compact(folded, coupling, removed, copies(inputs))
        except CompactionConflict as conflict:
            free = conflict.components[~barred[conflict.components]]
            if not free.size:
                raise
            barred[free] = True
            continue
        break
    counts = {
        key: int(gone[group.components].sum())
        for key, group in zip(group_keys(coupling.groups), coupling.groups, strict=True)
    }
    planned = PlannedChannels(
        coupling, ChannelPlan(removed, counts), Originals.of(coupling.groups), smaller, []
    )
    certificate = certified(folded, planned, inputs)
    if certificate is not None:
        done.certificates.append(certificate)
    done.masks = compact_masks(done.masks, folded, planned, inputs)
    done.program = smaller
    done.folded += int((gone & moved).sum())
    for key, count in counts.items():
        if count:
            done.by_group[key] = done.by_group.get(key, 0) + count
    return True


def _measured(
    joint: Program, coupling: Coupling, readers: Readers
) -> dict[int, tuple[torch.Tensor, Flags]]:
    """For each reader of a constant, what its inputs hold and whether everywhere the same."""
    wanted = {
        reader.position: reader.channel_dim
        for reader in readers.layers
        if (reader.constant & reader.nonzero).any()
    }
    if not wanted:
        return {}
    exact = in_float64(joint)
    watch = _Watch(wanted)
    with torch.no_grad(), same_start(exact):
        Interpreter(exact, watch).run(noisy(copies(coupling.example), seed=0))
    return watch.found


class _Watch(PlainVisitor):
    def __init__(self, wanted: dict[int, int]) -> None:
        self._wanted = wanted
        self._position = 0
        self.found: dict[int, tuple[torch.Tensor, Flags]] = {}

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        dim = self._wanted.get(self._position)
        if dim is not None:
            value, same = constant_of(arguments[0].detach(), dim)
            self.found[self._position] = value, same.cpu().numpy()
        self._position += 1
        return run_operator(instruction, arguments)


def _dead(
    readers: Readers, constants: dict[int, tuple[torch.Tensor, Flags]], barred: Flags
) -> tuple[Flags, Flags]:
    """By component: whether it can go, and whether a constant moves into a bias then."""
    alive = readers.alive | barred | ~readers.read
    moved = np.zeros_like(alive)
    for reader in readers.layers:
        live = (reader.components >= 0) & reader.nonzero
        ready = np.zeros_like(live)
        if reader.position in constants:
            value, same = constants[reader.position]
            zero = (value == 0).cpu().numpy()
            ready = reader.constant & same & (zero | (reader.bias is not None and not reader.pads))
            moved[reader.components[live & ready & ~zero]] = True
        alive[reader.components[live & ~ready]] = True
    return ~alive, moved & ~alive


def _one_of_each_stays(coupling: Coupling, dead: Flags) -> npt.NDArray[np.int64]:
    """The dead components; of a group that is dead altogether, all but the first."""
    gone = dead.copy()
    for group in coupling.groups:
        if gone[group.components].all():
            gone[group.components[0]] = False
    return np.flatnonzero(gone).astype(np.int64)


@torch.no_grad()
def _folded(
    program: Program,
    readers: Readers,
    constants: dict[int, tuple[torch.Tensor, Flags]],
    gone: Flags,
) -> Program:
    """A twin in which nothing reads the components that go, and biases hold what they said."""
    twin = program.twin()
    for reader in readers.layers:
        leaves = (reader.components >= 0) & gone[reader.components] & reader.nonzero
        if not leaves.any():
            continue
        columns = torch.from_numpy(np.flatnonzero(leaves))
        weight = twin.attributes()[reader.weight].detach().clone()
        columns = columns.to(weight.device)
        if reader.bias is not None:
            value = constants[reader.position][0].to(weight.device)[columns]
            read = weight.index_select(reader.weight_dim, columns).double()
            bias = twin.attributes()[reader.bias].detach()
            shape = [-1 if dim == reader.weight_dim else 1 for dim in range(read.dim())]
            added = (read * value.reshape(shape)).flatten(1).sum(1)
            twin.set_tensor(reader.bias, (bias.double() + added).to(bias.dtype))
        weight.index_fill_(reader.weight_dim, columns, 0.0)
        twin.set_tensor(reader.weight, weight)
    return twin


@torch.no_grad()
def _compare(before: Program, after: Program, inputs: Sequence[Any], *, exact: bool) -> None:
    """Nothing a dead neuron did may be missing."""
    example = noisy(copies(inputs), seed=1)
    outputs = []
    for program in (before, after):
        wide = in_float64(program)
        with same_start(wide):
            outputs.append(wide.run(example))
    error = relative_error(*outputs)
    if not error <= (TOLERANCE if exact else comparison_tolerance(before)):
        raise CertificateFailed(
            f"without its dead neurons the model differs by {error:.2g} of its output",
            hint="no model was produced; leave `remove_dead` out, and the file that shows this is "
            "worth a report",
            where="remove_dead",
        )
