"""What a runner tells its supervisor: JSON lines on one file descriptor.

The runner's process executes the uploaded program, so whatever comes out of it is untrusted: a
line is parsed strictly, its size, numbers and strings are bounded to what the database takes, and
a line that does not parse ends the job.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from secateur.report import Measurement
from secateur.resources import ProducedKind

MAX_LINE_BYTES = 16 << 20
"""Plans of large models are long; nothing legitimate comes near this."""

Name = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**53)]
FileName = Annotated[str, Field(min_length=1, max_length=1000)]


class Malformed(Exception):
    """A line that is no message."""


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StageStarted(Message):
    """A stage or one of its steps began."""

    kind: Literal["stage_started"] = "stage_started"
    index: Annotated[int, Field(ge=0, le=10_000)]
    name: Name


class StageFinished(Message):
    """It ended."""

    kind: Literal["stage_finished"] = "stage_finished"
    index: Annotated[int, Field(ge=0, le=10_000)]
    name: Name
    measurement: Measurement | None = None


class Progress(Message):
    """Progress inside the current stage."""

    kind: Literal["progress"] = "progress"
    current: Count
    total: Count
    unit: Name
    eta_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None


class Metric(Message):
    """One measured value."""

    kind: Literal["metric"] = "metric"
    name: Name
    value: float
    step: Annotated[int, Field(ge=0, lt=2**31)]
    stage: Name = ""


class Log(Message):
    """A remark worth keeping."""

    kind: Literal["log"] = "log"
    message: Annotated[str, Field(max_length=10_000)]
    data: dict[str, Any] = {}


class Checkpoint(Message):
    """A complete checkpoint lies at `path`, relative to the work folder."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: FileName


class TrainingState(Message):
    """The file at `path` takes the last checkpoint further; it replaces an earlier one."""

    kind: Literal["training_state"] = "training_state"
    path: FileName


class Produced(Message):
    """A finished file lies at `path`, relative to the work folder."""

    kind: Literal["artifact"] = "artifact"
    artifact: ProducedKind
    path: FileName
    media_type: Annotated[str, Field(max_length=100, pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$")]


class Result(Message):
    """The job succeeded, with its short result."""

    kind: Literal["result"] = "result"
    result: dict[str, Any]


class Failure(Message):
    """The job failed, with what the user is told."""

    kind: Literal["error"] = "error"
    type: Annotated[str, Field(min_length=1, max_length=100)]
    title: Annotated[str, Field(min_length=1, max_length=10_000)]
    hint: Annotated[str, Field(max_length=10_000)] = ""
    where: Annotated[str, Field(max_length=1000)] = ""
    retryable: bool = False

    def as_error(self) -> dict[str, Any]:
        """The job's `error`."""
        return self.model_dump(exclude={"kind"})


AnyMessage = Annotated[
    StageStarted
    | StageFinished
    | Progress
    | Metric
    | Log
    | Checkpoint
    | TrainingState
    | Produced
    | Result
    | Failure,
    Field(discriminator="kind"),
]
_adapter: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def parse(line: bytes) -> AnyMessage:
    """The message on one line.

    Raises:
        Malformed: the line is not JSON, no known message, or holds what the database cannot keep
            (numbers that are not finite).
    """
    try:
        plain = json.loads(line, parse_constant=_refuse, parse_float=_finite)
        return _adapter.validate_python(_storable(plain))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Malformed(f"{place or 'message'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error


def encode(message: Message) -> bytes:
    """One line, newline included."""
    return message.model_dump_json().encode() + b"\n"


def storable_text(text: str) -> str:
    """The text without what PostgreSQL refuses: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable_text(value)
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {storable_text(key): _storable(item) for key, item in value.items()}
        case _:
            return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")
