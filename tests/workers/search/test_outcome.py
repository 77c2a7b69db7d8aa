"""What a trial's report is taken for: known names, finite numbers, nothing else."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from secateur.report import Measurement

from persistence.artifact_store import LocalArtifactStore, store_file
from tests.reporting.samples import small_report
from workers.search.outcome import quantities, read_report


def measured(**changes: object) -> Measurement:
    return small_report().after.model_copy(update=changes)


def test_quantities() -> None:
    after = small_report().after
    assert after.accuracy is not None
    assert quantities(after) == {
        "accuracy": after.accuracy.top1, "loss": after.loss, "macs": after.macs,
        "params": after.nonzero_parameters, "file_bytes": after.file_bytes,
        "latency_ms": after.latency_ms[0].p50,
    }  # fmt: skip
    assert quantities(measured(metrics={"mae": 0.25, "mse": None}, accuracy=None))["mae"] == 0.25


def test_what_is_no_number_or_no_name_of_ours_is_left_out() -> None:
    found = quantities(
        measured(metrics={"mae": math.inf, "made up": 1.0}, loss=math.nan, macs=10**400)
    )
    assert not {"mae", "made up", "loss", "macs"} & found.keys()
    assert "latency_ms" not in quantities(measured(latency_ms=[]))
    assert "accuracy" not in quantities(measured(accuracy=None))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 1}', b"\xff", b"[" * 100_000])
def test_a_report_that_is_none(tmp_path: Path, content: bytes) -> None:
    store = LocalArtifactStore(tmp_path)
    blob = store_file(store, io.BytesIO(content))
    assert read_report(store, blob.sha256) is None
    assert read_report(store, "0" * 64) is None
