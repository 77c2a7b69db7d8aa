"""The frame around every format: processes that crash, hang, refuse or compute otherwise."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from secateur.report import Report
from torch import nn

from engine.exports import registry
from engine.exports.packing import pack
from engine.exports.process import read_answer, write_answer
from engine.exports.registry import Exporter
from engine.exports.request import ExportFailed, ExportRequest
from engine.pipeline import exporting
from engine.pipeline.exporting import Result, export_all
from tests.engine.digits import Recorder, save_scripted

FORMATS = {
    "hangs": "import time\ndef write(request):\n    time.sleep(600)\n",
    "crashes": "import os, signal\ndef write(request):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
    "raises": "def write(request):\n    (request.folder / 'half').write_bytes(b'x' * 999)\n"
    "    raise KeyError('aten::strange is not known')\n",
    "differs": "from engine.exports.request import Exported\ndef write(request):\n"
    "    path = request.folder / 'f'\n    path.write_bytes(b'12')\n"
    "    return Exported(path, 'nobody', 0.25, 1e-3, (1, 3), False, ('odd',))\n",
    "folder": "from engine.exports.request import Exported\ndef write(request):\n"
    "    path = request.folder / 'tree'\n    (path / 'sub').mkdir(parents=True)\n"
    "    (path / 'sub' / 'b.txt').write_text(str(request.expected(request.inputs).tolist()))\n"
    "    (path / 'a.txt').write_text(str(len(request.cases)))\n"
    "    return Exported(path, 'nobody', 0.0, 1e-3, (2, 3), True)\n",
}
"""Formats that only these tests have; the process imports them by their module like any other."""


@pytest.fixture
def result(tmp_path) -> Result:
    work = tmp_path / "work"
    work.mkdir()
    model = save_scripted(nn.Linear(3, 2).eval(), work / "compact.pt")
    return Result(model, (torch.ones(2, 3),), 1e-7, 1e-3)


@pytest.fixture
def export(result, tmp_path, monkeypatch):
    """Carry out exports in formats of `FORMATS`, in real processes."""

    def carry_out(*names: str, seconds: float = 120.0, result: Result = result):
        known = dict(registry.EXPORTERS)
        for name in set(names) & set(FORMATS):
            (tmp_path / f"test_format_{name}.py").write_text(FORMATS[name])
            known[name] = Exporter(name, f"test_format_{name}", f"compact.{name}")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
        monkeypatch.setattr(exporting, "EXPORTERS", known)
        monkeypatch.setattr(exporting, "options_of", lambda _: {})
        heard = Recorder()
        done = export_all(
            list(names),
            result,
            workdir=result.model.parent,
            threads=1,
            listener=heard,
            first_index=4,
            seconds=seconds,
        )
        return *done, heard

    return carry_out


def left(result: Result) -> list[str]:
    return sorted(path.name for path in result.model.parent.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crashes", "it was ended by signal 11"),
        ("raises", "KeyError: 'aten::strange is not known'"),
    ],
)
def test_a_format_that_cannot_be_made_fails_alone(export, result, name, reason):
    (report,), artifacts, heard = export(name)
    assert (report.format, report.state, report.artifact) == (name, "failed", None)
    assert report.reason == reason
    assert artifacts == []
    assert left(result) == ["compact.pt"]
    assert heard.started == [(4, f"export {name}")]
    assert heard.finished == [(4, f"export {name} failed", None)]


def test_one_that_hangs_is_ended(export, result):
    (report,), artifacts, _ = export("hangs", seconds=1)
    assert report.state == "failed"
    assert report.reason == "it took longer than 1 seconds and was ended"
    assert artifacts == []
    assert left(result) == ["compact.pt"]


def test_one_that_computes_otherwise_is_not_delivered(export, result):
    lowered = replace(result, lowering={"scheme": "dynamic_int8"})
    (report,), artifacts, _ = export("differs", result=lowered)
    assert report.reason == (
        "its outputs differ by 0.25 of the largest output, and the tolerance is 0.001; "
        "the result computes by `dynamic_int8`, this format in floating point"
    )
    assert (report.relative_error, report.tolerance, report.batch) == (0.25, 1e-3, "fixed")
    assert artifacts == []
    assert left(result) == ["compact.pt"]


def test_a_folder_is_delivered_as_a_zip_and_the_others_go_on(export, result):
    reports, artifacts, _ = export("torchscript", "folder")
    assert [one.state for one in reports] == ["made"] * 2
    assert (reports[0].artifact, reports[0].relative_error) == ("model", 1e-7)
    assert reports[1].batch == "any"
    assert reports[1].batch_sizes == [2, 3]
    assert [(one.kind, one.media_type) for one in artifacts] == [
        ("folder", "application/zip"),
    ]
    assert left(result) == ["compact.folder.zip", "compact.pt"]
    with zipfile.ZipFile(artifacts[0].path) as archive:
        assert archive.namelist() == ["a.txt", "sub/b.txt"]
        assert archive.read("a.txt") == b"2"
        outputs = torch.tensor(json.loads(archive.read("sub/b.txt")))
    assert torch.allclose(outputs, torch.jit.load(result.model)(torch.ones(2, 3)))
    assert [one.file_bytes for one in reports[1:]] == [one.path.stat().st_size for one in artifacts]


def test_a_library_that_is_not_there_is_named(result, monkeypatch):
    known = {"safetensors": Exporter("safetensors", "nowhere", "f", needs=("no_such_library",))}
    monkeypatch.setattr(exporting, "EXPORTERS", known)
    (report,), _ = export_all(
        ["safetensors"], result, workdir=result.model.parent, threads=1, listener=Recorder(),
        first_index=1,
    )  # fmt: skip
    assert report.reason == (
        "this worker has no no_such_library; install `secateur-server[exports]` on it"
    )


def test_a_zip_has_the_same_bytes_for_the_same_content(tmp_path):
    for at, order in enumerate((["x", "y"], ["y", "x"])):
        for name in order:
            file = tmp_path / str(at) / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(name)
        pack(tmp_path / str(at), tmp_path / f"{at}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_what_a_format_refuses_is_answered_with_what_to_do(tmp_path):
    def refuse(_):
        raise ExportFailed("no lists", hint="leave them out")

    write_answer(refuse, ExportRequest("x", {}, tmp_path, tmp_path, ()), tmp_path / "answer.json")
    assert read_answer(tmp_path / "answer.json") == "no lists; leave them out"


def test_an_answer_keeps_errors_that_are_no_numbers(tmp_path):
    answer = tmp_path / "answer.json"
    made = {
        "path": "f", "verified_by": "x", "relative_error": float("inf"), "tolerance": 0.1,
        "batch_sizes": [1], "any_batch": None, "notes": ["n"],
    }  # fmt: skip
    answer.write_text(json.dumps({"made": made}))
    assert read_answer(answer).relative_error == float("inf")


def test_a_failed_export_is_a_warning_and_changes_no_verdict(run, tiny):
    recipe = {
        "inputs": [{"shape": [2, 1, 8, 8]}],
        "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
        "exports": ["safetensors"],
    }
    done = run(tiny, recipe)
    report = done.result.report
    assert [(one.format, one.state) for one in report.exports] == [("safetensors", "made")]
    kinds = {artifact.kind: artifact.path for artifact in done.result.artifacts}
    assert set(kinds) == {"model", "report_json", "recipe", "safetensors"}
    assert Report.model_validate_json(kinds["report_json"].read_text()) == report
    assert done.heard.started[-1] == (2, "export safetensors")

    failed = exporting.with_exports(
        report, [report.exports[0].model_copy(update={"state": "failed", "reason": "it is odd"})]
    )
    assert failed.verdict.warnings[-1] == "the safetensors export failed: it is odd"
    assert failed.verdict.ok == report.verdict.ok
