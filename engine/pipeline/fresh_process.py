"""Run as a script, with nothing but torch: does a saved model compute what it should?

    python -I fresh_process.py PARENT

Each line of its input names three files in JSON: the model, the exchange and the answer. A process
forked for the line loads the model and writes {"relative_error": e} as the answer; the model itself
may print what it likes. How that process ended goes out as a line of JSON: its status, or the
negative number of a signal, and the end of what it wrote to stderr.
"""

import json
import os
import pathlib
import runpy
import sys
import traceback

import torch

_KEPT = 1 << 15

# By its path: nothing of this product is imported here.
_DIE_WITH_PARENT = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "parent_death.py"))[
    "die_with_parent"
]


def _relative_error(got: object, expected: object) -> float:
    """Largest difference over the largest expected value; infinite where anything else differs."""
    if isinstance(expected, dict) and isinstance(got, dict) and got.keys() == expected.keys():
        return max((_relative_error(got[key], expected[key]) for key in expected), default=0.0)
    for kind in (list, tuple):
        if isinstance(expected, kind) and isinstance(got, kind) and len(got) == len(expected):
            return max(map(_relative_error, got, expected), default=0.0)
    if isinstance(expected, float) and isinstance(got, float):
        got, expected = (torch.tensor(x, dtype=torch.float64) for x in (got, expected))
    if isinstance(expected, torch.Tensor) and isinstance(got, torch.Tensor):
        return _difference(got.cpu(), expected)
    return 0.0 if type(got) is type(expected) and got == expected else float("inf")


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("inf")
    if expected.numel() == 0 or torch.equal(got, expected):
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    left, right = got.to(wide), expected.to(wide)
    finite = torch.isfinite(right)
    if not torch.equal(torch.isfinite(left), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(right[finite].abs().max()) or 1.0
    return float((left[finite] - right[finite]).abs().max()) / scale


def _placed(value: object, device: str) -> object:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _placed(item, device) for key, item in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_placed(item, device) for item in value)
    return value


def _main(model_path: str, exchange_path: str, answer_path: str) -> None:
    exchange = torch.load(exchange_path, weights_only=True)
    device = exchange["device"]
    torch.set_num_threads(exchange["threads"])
    model = torch.jit.load(model_path, map_location=device)  # type: ignore[no-untyped-call]
    inputs = [_placed(value, device) for value in exchange["inputs"]]
    with torch.no_grad():
        torch.manual_seed(0)
        got = model(*inputs)
    answer = {"relative_error": _relative_error(got, exchange["expected"])}
    pathlib.Path(answer_path).write_text(json.dumps(answer))


def _forked(model: str, exchange: str, answer: str) -> tuple[int, str]:
    """Status of a process that did it and ended, and the end of what it wrote to stderr."""
    server = os.getpid()
    listen, speak = os.pipe()
    child = os.fork()
    if child:
        os.close(speak)
        said = _heard(listen)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
    status = 1
    try:
        _DIE_WITH_PARENT(server)
        for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, os.devnull, os.O_WRONLY)):
            os.dup2(os.open(path, flags), number)
        os.dup2(speak, 2)
        os.close(listen)
        os.close(speak)
        _main(model, exchange, answer)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # nothing of the server's runs here, not even on its way out


def _heard(pipe: int) -> str:
    """All that comes through a pipe, of which the end is kept."""
    said = b""
    with open(pipe, "rb", buffering=0) as stream:
        while piece := stream.read(_KEPT):
            said = (said + piece)[-_KEPT:]
    return said.decode(errors="replace")


def _serve() -> None:
    answers = os.dup(1)
    for line in sys.stdin:
        os.write(answers, json.dumps(_forked(*json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    _DIE_WITH_PARENT(int(sys.argv[1]))
    _serve()
