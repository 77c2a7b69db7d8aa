"""Initial weights that come with the job: the upload as it was before it was trained."""

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
    """Read the tensors of another export of the upload, by the names of the upload.

    Buffers that count (`num_batches_tracked`) may be missing: they do not act on outputs.

    Args:
        path: of a safetensors state dict, or of a TorchScript file (any other suffix).
        program: the upload.

    Returns:
        Parameters and buffers by every name of the upload, on the CPU, each with the type of its
        own.

    Raises:
        InitialWeightsInvalid: the file cannot be read, or names or shapes differ.
    """
    found = _read(path)
    own = program.attributes()
    needed = {name for name, tensor in own.items() if tensor.is_floating_point()}
    # Tied weights are saved under one of their names.
    held = {memory_of(own[name]): tensor for name, tensor in found.items() if name in own}
    missing = sorted(name for name in needed if memory_of(own[name]) not in held)
    if missing:
        raise InitialWeightsInvalid(
            f"the initial weights lack `{missing[0]}`"
            + (f" and {len(missing) - 1} more tensors of the model" if len(missing) > 1 else ""),
            hint="initial weights must be of the uploaded model itself, exported in the same way "
            "before it was trained",
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


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        try:
            return Program.load(path).attributes()
        except EngineError as error:
            raise InitialWeightsInvalid(
                f"the model with the initial weights cannot be read: {error.title}",
                hint=error.hint,
                where="initial_model_id",
            ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InitialWeightsInvalid(
            f"the initial weights cannot be read: {str(error).splitlines()[0]}",
            hint="save them with `safetensors.torch.save_file(model.state_dict(), path)`",
            where="initial",
        ) from error
