"""Run as a script, with nothing but torch: does a saved model compute what it should?

    python -I fresh_process.py model.pt exchange.pt answer.json

writes {"relative_error": e} to the last file; the model itself may print what it likes.
"""

import json
import pathlib
import sys

import torch


def _tensors(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in _tensors(value)]
    return []


def _relative_error(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in expected]:
        return float("inf")
    worst = 0.0
    for ours, theirs in zip(got, expected, strict=True):
        if theirs.numel() == 0 or torch.equal(ours, theirs):
            continue
        left, right = ours.double(), theirs.double()
        if not torch.equal(torch.isfinite(left), torch.isfinite(right)):
            return float("inf")
        finite = torch.isfinite(right)
        if finite.any():
            scale = float(right[finite].abs().max()) or 1.0
            worst = max(worst, float((left[finite] - right[finite]).abs().max()) / scale)
    return worst


def _main(model_path: str, exchange_path: str, answer_path: str) -> None:
    exchange = torch.load(exchange_path, weights_only=True)
    device = exchange["device"]
    torch.set_num_threads(exchange["threads"])
    model = torch.jit.load(model_path, map_location=device)  # type: ignore[no-untyped-call]
    inputs = [tensor.to(device) for tensor in exchange["inputs"]]
    with torch.no_grad():
        torch.manual_seed(0)
        got = [tensor.cpu() for tensor in _tensors(model(*inputs))]
    answer = {"relative_error": _relative_error(got, exchange["expected"])}
    pathlib.Path(answer_path).write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(*sys.argv[1:4])
