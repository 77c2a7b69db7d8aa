"""Run as a script: what does an AOTInductor package compute?

    python -I aot_inductor.py compact.aoti.pt2 given.pt found.pt

`given.pt` holds a list of arguments for every call, `found.pt` gets a list of results.
"""

import sys
from typing import Any

import torch
import torch._inductor


def _plain(value: Any) -> Any:
    """Containers of torch's own as Python's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_plain(item) for item in value)
    return value


def _main(package: str, given: str, found: str) -> None:
    model: Any = torch._inductor.aoti_load_package(package)
    calls = torch.load(given, weights_only=True)
    with torch.inference_mode():
        torch.save([_plain(model(*call)) for call in calls], found)


if __name__ == "__main__":
    _main(*sys.argv[1:4])
