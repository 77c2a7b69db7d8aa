"""Run as a script: does a safetensors file hold the state dict of a TorchScript file?

    python -I safetensors_file.py compact.safetensors compact.pt answer.json

writes {"different": [names]} to the last file: tensors that are missing, too many, or not the same
bits, types and shapes.
"""

import json
import pathlib
import sys

import torch
from safetensors import safe_open


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes: NaN is to stay the NaN that it is.
    return torch.equal(_bits(one), _bits(other))


def _main(weights: str, model: str, answer: str) -> None:
    state = torch.jit.load(model, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    with safe_open(weights, framework="pt") as file:
        aliases = {k: v for k, v in (file.metadata() or {}).items() if k != "format"}
        held = set(file.keys())
        different = sorted((held | set(aliases)) ^ set(state))
        for name in sorted(set(state) - set(different)):
            if not _same(file.get_tensor(aliases.get(name, name)), state[name]):
                different.append(name)
    pathlib.Path(answer).write_text(json.dumps({"different": different}))


if __name__ == "__main__":
    _main(*sys.argv[1:4])
