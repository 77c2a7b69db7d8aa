"""Writers, readers and deletions in any order do what a dictionary would."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from persistence.artifact_store import BlobWriter
from tests.persistence.artifact_store.store_world import StoreWorld, local_world, s3_world

CONTENT = st.sampled_from([b"", b"a", b"b", b"ab" * 3000])
"""Few, so that different writers often end with the same bytes."""


class Interleaving(RuleBasedStateMachine):
    """Rules for a store; `open_world` is put in by the tests."""

    open_world: Callable[[Path, ExitStack], StoreWorld]
    writers = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.world = type(self).open_world(folder, self.stack)
        self.blobs: dict[str, bytes] = {}
        self.under_way = 0

    def teardown(self) -> None:
        self.stack.close()

    @rule(target=writers)
    def start(self) -> Any:
        self.under_way += 1
        return [self.world.store.open_writer(), b""]

    @rule(writer=writers, data=CONTENT)
    def write(self, writer: list[Any], data: bytes) -> None:
        writer[0].write(data)
        writer[1] += data
        assert writer[0].bytes_written == len(writer[1])

    @rule(writer=consumes(writers))
    def commit(self, writer: list[Any]) -> None:
        blob = writer[0].commit()
        self.under_way -= 1
        self.blobs[blob.sha256] = writer[1]
        assert blob.sha256 == hashlib.sha256(writer[1]).hexdigest()
        assert blob.bytes == len(writer[1])

    @rule(writer=consumes(writers))
    def abort(self, writer: list[Any]) -> None:
        unfinished: BlobWriter = writer[0]
        unfinished.abort()
        unfinished.abort()
        self.under_way -= 1

    @rule(data=CONTENT)
    def delete(self, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        self.world.store.delete(sha256)
        self.blobs.pop(sha256, None)

    @rule(data=CONTENT)
    def look(self, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        store = self.world.store
        assert store.exists(sha256) == (sha256 in self.blobs)
        if sha256 not in self.blobs:
            with pytest.raises(FileNotFoundError):
                store.open(sha256)
            return
        with store.open(sha256) as source:
            assert source.read() == data
        assert store.size(sha256) == len(data)
        assert store.path(sha256).read_bytes() == data

    @invariant()
    def holds_what_was_committed(self) -> None:
        assert sorted(self.world.store.blobs()) == sorted(self.blobs)
        assert len(self.world.names()) == len(self.blobs) + self.under_way


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_store_is_a_dictionary(request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "s3":
        server = request.getfixturevalue("s3_service")

    class Machine(Interleaving):
        @staticmethod
        def open_world(folder: Path, stack: ExitStack) -> StoreWorld:
            if kind == "local":
                return local_world(folder)
            return stack.enter_context(s3_world(folder, server))

    few = settings(
        max_examples=40 if kind == "local" else 4,
        stateful_step_count=20 if kind == "local" else 12,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=few)
