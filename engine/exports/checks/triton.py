"""Run as a script: serve a call from a Triton model repository as its PyTorch backend would.

    python -I triton.py repository calls.pt answers.pt

reads `config.pbtxt` strictly, loads `1/model.pt`, and runs every call of `calls.pt` (a list of
lists of tensors). Tensors are taken as requests bring them: by the names, types and sizes of the
configuration, and nothing else is known of the model. Writes the outputs, in the order of the
configuration, as a list of lists of tensors. What does not fit the configuration ends the script.
"""

import pathlib
import re
import sys
from typing import Any

import torch

_TOKEN = re.compile(r'\s*(?:([A-Za-z_]\w*)|("(?:[^"\\\n])*")|(-?\d+)|([{}\[\],:]))')
_TENSOR: dict[str, Any] = {"name": str, "data_type": "type", "dims": int, "reshape": {"shape": int}}
_FIELDS: dict[str, Any] = {
    "name": str,
    "platform": str,
    "max_batch_size": int,
    "input": _TENSOR,
    "output": _TENSOR,
    "dynamic_batching": {},
}
_REPEATED = {"input", "output", "dims", "shape"}
_TYPES = {
    "TYPE_BOOL": torch.bool,
    "TYPE_UINT8": torch.uint8,
    "TYPE_INT8": torch.int8,
    "TYPE_INT16": torch.int16,
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
    "TYPE_FP16": torch.float16,
    "TYPE_FP32": torch.float32,
    "TYPE_FP64": torch.float64,
}


class _Text:
    """A reader of the text format, for the fields that are known."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"config.pbtxt: unreadable at {text[at : at + 30]!r}")
            self.tokens.append(found.group().strip())
            at = found.end()

    def next(self, wanted: str | None = None) -> str:
        token = self.tokens.pop(0) if self.tokens else "end of file"
        if wanted is not None and token != wanted:
            raise ValueError(f"config.pbtxt: {wanted!r} expected, {token!r} found")
        return token

    def message(self, fields: dict[str, Any], end: str | None) -> dict[str, Any]:
        values: dict[str, Any] = {name: [] for name in fields if name in _REPEATED}
        while self.tokens and self.tokens[0] != end:
            name = self.next()
            if name not in fields:
                raise ValueError(f"config.pbtxt: no field {name!r} here")
            if name in values and name not in _REPEATED:
                raise ValueError(f"config.pbtxt: {name!r} stands there twice")
            read = self.field(fields[name])
            if name in _REPEATED:
                values[name] += read if isinstance(read, list) else [read]
            else:
                values[name] = read
        if end is not None:
            self.next(end)
        return values

    def field(self, kind: Any) -> Any:
        if isinstance(kind, dict):
            self.next("{")
            return self.message(kind, "}")
        self.next(":")
        if self.tokens and self.tokens[0] == "[":
            self.next("[")
            items: list[str | int] = []
            while self.tokens and self.tokens[0] != "]":
                if items:
                    self.next(",")
                items.append(self.scalar(kind))
            self.next("]")
            return items
        return self.scalar(kind)

    def scalar(self, kind: Any) -> str | int:
        token = self.next()
        if kind is str and token.startswith('"'):
            return token[1:-1]
        if kind is int and re.fullmatch(r"-?\d+", token):
            return int(token)
        if kind == "type" and token in _TYPES:
            return token
        raise ValueError(f"config.pbtxt: {token!r} is no value of this field")


def _index(name: str) -> int:
    found = re.fullmatch(r".*?__(\d+)", name)
    if found is None:
        raise ValueError(f"{name!r} does not end in __ and a position")
    return int(found.group(1))


def _fit(tensor: torch.Tensor, config: dict[str, Any], batch: list[int]) -> None:
    """End with an error where a tensor is not what the configuration says."""
    wanted = [*batch, *config["dims"]]
    if tensor.dtype != _TYPES[config["data_type"]]:
        raise TypeError(f"{config['name']} is {tensor.dtype}, not {config['data_type']}")
    shape = list(tensor.shape)
    if "reshape" in config:
        wanted = [*batch, *config["reshape"]["shape"]]
    if len(shape) != len(wanted) or any(
        own not in (size, -1) for size, own in zip(shape, wanted, strict=True)
    ):
        raise ValueError(f"{config['name']} has sizes {shape}, not {wanted}")


def _serve(
    model: torch.jit.ScriptModule, config: dict[str, Any], call: list[torch.Tensor]
) -> list[torch.Tensor]:
    limit = config["max_batch_size"]
    batch = [call[0].shape[0]] if limit else []
    if limit and not 1 <= batch[0] <= limit:
        raise ValueError(f"a batch of {batch[0]} is above {limit}")
    for tensor, one in zip(call, config["input"], strict=True):
        _fit(tensor, one, batch)
    positions = [_index(one["name"]) for one in config["input"]]
    if sorted(positions) != list(range(len(call))):
        raise ValueError(f"inputs have the positions {positions}")
    placed = dict(zip(positions, call, strict=True))
    given: Any = model(*(placed[position] for position in range(len(call))))
    outputs = list(given) if isinstance(given, tuple) else [given]
    answers = []
    for one in config["output"]:
        answer = outputs[_index(one["name"])]
        _fit(answer, one, batch)
        answers.append(answer)
    return answers


def _main(repository: str, calls_path: str, answers_path: str) -> None:
    (folder,) = pathlib.Path(repository).iterdir()
    config = _Text((folder / "config.pbtxt").read_text()).message(_FIELDS, None)
    if config["name"] != folder.name:
        raise ValueError(f"the configuration is of {config['name']!r}, the folder {folder.name!r}")
    file = folder / "1" / "model.pt"
    model = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    with torch.inference_mode():  # as the backend runs models
        calls = torch.load(calls_path, weights_only=True)
        answers = []
        for call in calls:
            torch.manual_seed(0)
            answers.append(_serve(model, config, call))
    torch.save(answers, answers_path)


if __name__ == "__main__":
    _main(*sys.argv[1:4])
