"""What passes from a runner to its supervisor, and what does not."""

from __future__ import annotations

import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secateur.report import Measurement

from workers.messages import Failure, Log, Malformed, Metric, Progress, StageFinished, encode, parse
from workers.runner.sending import LineListener

MEASUREMENT = Measurement(
    file_bytes=1,
    parameters=2,
    nonzero_parameters=2,
    macs=3,
    loss=0.5,
    accuracy=None,
    latency_ms=[],
)


def listener(tmp_path: Path) -> tuple[LineListener, BytesIO]:
    stream = BytesIO()
    return LineListener(stream, tmp_path), stream


def heard(stream: BytesIO) -> list[Any]:
    return [parse(line) for line in stream.getvalue().splitlines()]


def test_what_the_engine_says_arrives(tmp_path: Path) -> None:
    said, stream = listener(tmp_path)
    said.stage_started(0, "prune")
    said.stage_finished(0, "prune", MEASUREMENT)
    said.metric("train/loss", 0.25, 7, "finetune")
    said.log("remark", path=tmp_path, value=math.nan)
    said.checkpoint(tmp_path / "a" / "checkpoint.pt")
    kinds = {type(message).__name__: message for message in heard(stream)}
    assert kinds["StageFinished"] == StageFinished(index=0, name="prune", measurement=MEASUREMENT)
    assert kinds["Metric"] == Metric(name="train/loss", value=0.25, step=7, stage="finetune")
    assert kinds["Log"] == Log(message="remark", data={"path": str(tmp_path), "value": "NaN"})
    assert kinds["Checkpoint"].path == "a/checkpoint.pt"


def test_a_metric_that_is_no_number_becomes_a_remark(tmp_path: Path) -> None:
    said, stream = listener(tmp_path)
    said.metric("train/loss", math.inf, 3, "finetune")
    [message] = heard(stream)
    assert isinstance(message, Log)
    assert "inf" in message.message


def test_progress_is_thinned_but_its_end_is_told(tmp_path: Path) -> None:
    said, stream = listener(tmp_path)
    for current in range(1, 1001):
        said.progress(current, 1000, "batches")
    messages = heard(stream)
    assert 2 <= len(messages) < 100
    assert isinstance(messages[-1], Progress)
    assert (messages[-1].current, messages[-1].eta_seconds) == (1000, 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "message"),
        (b'{"kind":"metric","name":"x","value":NaN,"step":0}', "not a finite number"),
        (b'{"kind":"log","message":"x","data":{"a":-Infinity}}', "not a finite number"),
        (b'{"kind":"log","message":"x","data":{"a":1e400}}', "not a finite number"),
        (b'{"kind":"metric","name":"x","value":1,"step":99999999999}', "step"),
        (b'{"kind":"metric","name":"x","value":1,"step":0,"extra":1}', "extra"),
        (b'{"kind":"stage_started","index":-1,"name":"x"}', "index"),
        (b'{"kind":"artifact","artifact":"checkpoint","path":"x","media_type":"a/b"}', "artifact"),
        (
            b'{"kind":"artifact","artifact":"model","path":"x","media_type":"a/b\\r\\nX: y"}',
            "media",
        ),
        (b'{"kind":"error","type":"","title":"x"}', "type"),
        (b'{"kind":"error","type":"x","title":"' + b"x" * 20_000 + b'"}', "title"),
    ],
)
def test_a_line_that_is_no_message_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(data=st.dictionaries(st.text(), json_values))
def test_whatever_a_line_holds_what_is_kept_can_be_stored(data: dict[str, Any]) -> None:
    """PostgreSQL refuses NUL characters, lone surrogates and numbers that are not finite."""
    line = json.dumps({"kind": "log", "message": "x", "data": data}).encode()
    try:
        message = parse(line)
    except Malformed:
        return
    assert isinstance(message, Log)
    stored = json.dumps(message.data, allow_nan=False, ensure_ascii=False)
    stored.encode()
    assert "\\u0000" not in stored


storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)


@given(title=storable.filter(bool), hint=storable)
def test_an_error_round_trips(title: str, hint: str) -> None:
    sent = Failure(type="x", title=title, hint=hint)
    [line] = encode(sent).split(b"\n")[:-1]
    assert parse(line) == sent
