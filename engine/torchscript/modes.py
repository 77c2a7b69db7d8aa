"""Training mode for programs that were traced in evaluation mode, and back.

A traced graph carries the training flags of batch_norm and dropout as constants, False when it
was traced in evaluation mode. For training they are replaced by True in a copy; a scripted
program reads them from its modules, so there `train()` is enough. Going back takes the graph the
program had before and the weights it has now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal

import torch

from engine.torchscript.autocast import show_convolutions
from engine.torchscript.batch_norms import BATCH_NORMS, batch_norms
from engine.torchscript.edit import GraphEditor
from engine.torchscript.exposing import Exposed
from engine.torchscript.fake_quantise import FAKE_QUANTISE, flag
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

DROPOUTS = {
    "aten::dropout": "train",
    "aten::dropout_": "train",
    "aten::feature_dropout": "train",
    "aten::feature_dropout_": "train",
    "aten::alpha_dropout": "train",
    "aten::alpha_dropout_": "train",
    "aten::feature_alpha_dropout": "train",
    "aten::native_dropout": "train",
    # Dropout between layers, and what cuDNN keeps for the way back.
    "aten::lstm": "train",
    "aten::gru": "train",
    "aten::rnn_tanh": "train",
    "aten::rnn_relu": "train",
}


class TrainingProgram(Program):
    """A program in training mode; `origin` is the one it was made from, `exposed` what it shows."""

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        device: str,
        origin: Program,
        exposed: Exposed | None = None,
    ) -> None:
        super().__init__(module, device)
        self.origin = origin
        self.exposed = exposed


def training_copy(
    program: Program,
    *,
    batch_norm: Literal["train", "frozen"],
    frozen: Collection[str] = (),
    dropout: Mapping[int, float] = MappingProxyType({}),
    shown: Mapping[str, tuple[Instruction, int]] = MappingProxyType({}),
    autocast: bool = False,
) -> TrainingProgram:
    """A copy in training mode.

    Args:
        batch_norm: `train` uses and updates batch statistics, `frozen` keeps the running ones.
        frozen: layers whose BatchNorm keeps the running ones in any case.
        dropout: other probabilities, by the index of the dropout's instruction.
        shown: inner values that the copy shows, by name: an instruction and which output of it.
        autocast: all convolutions are to follow autocast.
    """
    fresh = program.copy()
    exposed = Exposed(fresh, shown) if shown else None
    flags = DROPOUTS | (BATCH_NORMS if batch_norm == "train" else {})
    still = {
        norm.instruction.index
        for norm in batch_norms(fresh.block)
        if not norm.layers.isdisjoint(frozen)
    }
    editor = GraphEditor(fresh)
    constants = {
        instruction.outputs[0]: instruction.constant
        for instruction in walk(fresh.block)
        if instruction.kind == "prim::Constant"
    }
    for instruction in walk(fresh.block):
        if instruction.kind == FAKE_QUANTISE and instruction.operator is not None:
            place = instruction.operator.arguments.index("observer_on")
            editor.replace_operand(instruction, place, flag(True, program.device))
        name = flags.get(instruction.kind)
        if name is None or instruction.operator is None or instruction.index in still:
            continue
        if instruction.index in dropout:
            place = instruction.operator.arguments.index("p")
            editor.replace_operand(instruction, place, dropout[instruction.index])
        position = instruction.operator.arguments.index(name)
        if constants.get(instruction.inputs[position]) is False:
            editor.replace_operand(instruction, position, True)
    if autocast:
        show_convolutions(fresh.graph)
    module = fresh.module
    module.train()
    for name, _ in program.module.named_buffers():
        layer = name.rpartition(".")[0]
        if name.endswith("running_mean") and (batch_norm == "frozen" or layer in frozen):
            Program(module, program.device).submodule(layer).eval()
    return TrainingProgram(module, program.device, program, exposed)


@torch.no_grad()
def evaluation_copy(training: TrainingProgram) -> Program:
    """The program the training copy was made from, with the weights trained since."""
    fresh = training.origin.twin()
    trained = training.attributes()
    for name, tensor in fresh.attributes().items():
        tensor.copy_(trained[name])
    return fresh
