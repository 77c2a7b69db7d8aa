"""Run as a script, with nothing but torch: what does an ExportedProgram compute?

    python -I pt2_file.py compact.pt2 given.pt found.pt

The last file holds the outputs of every case, or, of one that was refused, why.
"""

import sys

import torch


def _plain(value: object) -> object:
    """Containers of torch's own as Python's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _main(model: str, given: str, found: str) -> None:
    stored = torch.load(given, weights_only=True)
    torch.set_num_threads(stored["threads"])
    program = torch.export.load(model).module()
    outputs: list[object] = []
    for inputs in stored["cases"]:
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                outputs.append(_plain(program(*inputs)))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            outputs.append(str(error).strip().partition("\n")[0][:300] or type(error).__name__)
    torch.save(outputs, found)


if __name__ == "__main__":
    _main(*sys.argv[1:4])
