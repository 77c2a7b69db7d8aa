"""One job through the engine; every way it can fail becomes an error message."""

from __future__ import annotations

import traceback
from typing import Any, BinaryIO

import torch

from engine.errors import EngineError
from engine.inspection import inspect
from workers.instructions import Instructions
from workers.messages import Failure, Result
from workers.runner.sending import LineListener

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def execute(instructions: Instructions, events: BinaryIO) -> None:
    """Run the job and send its artifacts and its result, or its error."""
    listener = LineListener(events, instructions.workdir)
    torch.set_num_threads(instructions.threads)
    try:
        result = _run(instructions, listener)
    except EngineError as error:
        listener.send(
            Failure(
                type=error.type,
                title=error.title[:10_000],
                hint=error.hint[:10_000],
                where=error.where[:1000],
                retryable=error.retryable,
            )
        )
    except Exception as error:
        # the trace goes to the job's log (stderr); the user is told what can be said
        traceback.print_exc()
        listener.send(_unexpected(error))
    else:
        listener.send(Result(result=result))


def _run(instructions: Instructions, listener: LineListener) -> dict[str, Any]:
    if instructions.type == "inspect":
        return inspect(instructions.model).model_dump(mode="json")
    # every uploaded model is inspected, and none of this is needed for it
    from workers.runner import recipe_jobs  # noqa: PLC0415

    return recipe_jobs.run(instructions, listener)


def _unexpected(error: Exception) -> Failure:
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in text for sign in _OUT_OF_MEMORY
    ):
        return Failure(
            type="out-of-memory",
            title="The job ran out of memory.",
            hint="Try a smaller batch size, fewer samples, or a machine with more memory.",
            retryable=True,
        )
    return Failure(
        type="internal-error",
        title=f"The engine failed unexpectedly ({type(error).__name__}).",
        hint="The trace is at the end of the job's log; please report it with the recipe.",
    )
