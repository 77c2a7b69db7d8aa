"""What the command line shows of a training that goes on."""

from __future__ import annotations

from secateur.cli.progress import live_line, stage_line


def test_live_values_stand_in_one_line() -> None:
    values = {
        "live/memory_bytes": 812_000_000.0,
        "live/loss": 0.123456,
        "live/lr": 0.01,
        "live/samples_per_second": 1234.4,
    }
    assert live_line(values) == "loss 0.1235  lr 0.01  1,234 samples/s  812.0 MB"
    assert live_line({"live/loss": 2.0}) == "loss 2"


def test_a_stage_says_what_it_measured_or_how_it_ended() -> None:
    measured = {"name": "prune", "measurement": {"parameters": 1000, "macs": 2000}}
    assert stage_line(measured) == "prune: 1,000 parameters, 2,000 MACs"
    assert stage_line({"name": "export onnx"}) == "export onnx: done"
    assert stage_line({"name": "export onnx failed"}) == "export onnx failed"
