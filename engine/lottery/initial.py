"""Initial weights that come with the job: a state dict of the upload before it was trained."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import EngineError
from engine.torchscript.program import Program, memory_of


class InitialWeightsInvalid(EngineError):
    """The initial weights are not those of the uploaded program."""

    type = "initial-weights-invalid"


def load_initial(path: Path, program: Program) -> dict[str, Tensor]:
    """Read a safetensors state dict by the names of the upload.

    Buffers that count (`num_batches_tracked`) may be missing: they do not act on outputs.

    Args:
        path: of the safetensors file.
        program: the upload.

    Returns:
        Parameters and buffers by every name of the upload, on the CPU, each with the type of its
        own.

    Raises:
        InitialWeightsInvalid: not a safetensors file, or names or shapes differ.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InitialWeightsInvalid(
            f"the initial weights cannot be read: {str(error).splitlines()[0]}",
            hint="save them with `safetensors.torch.save_file(model.state_dict(), path)`",
            where="initial",
        ) from error
    own = program.attributes()
    needed = {name for name, tensor in own.items() if tensor.is_floating_point()}
    # Tied weights are saved under one of their names.
    held = {memory_of(own[name]): tensor for name, tensor in found.items() if name in own}
    missing = sorted(name for name in needed if memory_of(own[name]) not in held)
    if missing:
        raise InitialWeightsInvalid(
            f"the initial weights lack `{missing[0]}`"
            + (f" and {len(missing) - 1} more tensors of the model" if len(missing) > 1 else ""),
            hint="save the state dict of the same model before it was trained",
            where=missing[0],
        )
    unknown = sorted(found.keys() - own.keys())
    if unknown:
        raise InitialWeightsInvalid(
            f"the initial weights hold `{unknown[0]}`, which the model does not have",
            hint=f"the model's tensors are named like `{next(iter(own))}`",
            where=unknown[0],
        )
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise InitialWeightsInvalid(
                f"`{name}` is {list(tensor.shape)} in the initial weights and "
                f"{list(own[name].shape)} in the model",
                hint="initial weights must be of the uploaded model itself",
                where=name,
            )
    return {
        name: held[memory_of(tensor)].to(tensor.dtype)
        for name, tensor in own.items()
        if memory_of(tensor) in held
    }
