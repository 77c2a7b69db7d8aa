"""Reading a TorchScript archive, and what is wrong with one that torch refuses."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch

from engine.errors import ModelRaised, NotTorchScript, UnsupportedOperator

_RAN = "The following operation failed in the TorchScript interpreter."
_LOST_WEIGHTS = "required keyword attribute 'value' is undefined"
_UNKNOWN_OPERATOR = re.compile(r"Unknown builtin op: ([\w:.]+)|unknown operator ([\w:.]+)", re.I)


def read_archive(source: Path | bytes, device: str) -> torch.jit.ScriptModule:
    """The module a file holds, in evaluation mode.

    Raises:
        NotTorchScript: the file is no TorchScript archive, damaged, or holds something else.
        ModelRaised: code of the program runs while it is loaded, and failed.
        UnsupportedOperator: it needs an operator this build of torch does not have.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        module = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError, EOFError, AttributeError) as error:
        message = str(error).strip()
        unknown = _UNKNOWN_OPERATOR.search(message)
        if unknown:
            operator = (unknown.group(1) or unknown.group(2)).rstrip(".:")
            raise UnsupportedOperator(
                f"the program calls {operator}, which this build of torch does not have",
                where=operator,
                hint="custom operators are not loaded; export the model with built-in operators",
            ) from error
        if _LOST_WEIGHTS in message:
            raise NotTorchScript(
                "the file does not hold its weights: torch.jit.optimize_for_inference packed its "
                "convolutions for one processor, which cannot be saved",
                where="model",
                hint="upload what you gave to optimize_for_inference; what torch.jit.freeze gives "
                "is welcome too",
            ) from error
        if message.startswith(_RAN):
            raise ModelRaised(
                "the program fails while it is loaded, in its own code: "
                f"{message.splitlines()[-1].strip()[:500]}",
                where="model",
                hint="loading runs the `__setstate__` of its classes; correct it and export again",
            ) from error
        raise NotTorchScript(
            f"torch.jit.load refuses the file: {message.splitlines()[0] if message else error!r}",
            where="model",
            hint="upload what torch.jit.save wrote; a state_dict or a pickled module is not enough",
        ) from error
    if not isinstance(module, torch.jit.ScriptModule):
        raise NotTorchScript(
            f"the file holds a {type(module).__name__}, not a TorchScript module",
            where="model",
            hint="export with torch.jit.script or torch.jit.trace, then torch.jit.save",
        )
    module.eval()
    return module
