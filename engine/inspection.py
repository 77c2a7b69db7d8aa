"""Inspection: what a model is, without running it."""

from __future__ import annotations

from pathlib import Path

from secateur.resources import ForwardArgument, ModelInfo

from engine.measure.size import parameter_count, weights_of
from engine.torchscript.program import Program


def forward_arguments(program: Program) -> list[ForwardArgument]:
    """What `forward` takes, without self."""
    schema = program.schema()
    return [
        ForwardArgument(
            name=argument.name, type=str(argument.type), optional=argument.has_default_value()
        )
        for argument in schema.arguments[1:]
    ]


def inspect(model: Path) -> ModelInfo:
    """Read a model's interface and weights from its file.

    Raises:
        NotTorchScript: the file is no TorchScript archive, or has no `forward`.
        UnsupportedOperator: it needs an operator this build of torch does not have.
    """
    program = Program.load(model)
    weights = weights_of(program)
    attributes = program.attributes()
    buffers = {name: tensor for name, tensor in attributes.items() if name not in weights}
    return ModelInfo(
        arguments=forward_arguments(program),
        methods=["forward", *program.other_methods()],
        parameters=parameter_count(weights),
        buffers=parameter_count(buffers),
        dtypes=sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}),
        layers=program.layer_names(),
        torchscript_bytes=model.stat().st_size,
    )
