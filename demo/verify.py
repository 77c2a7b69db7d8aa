"""Load a TorchScript file with nothing but torch and count what it gets right.

Run as a script of its own in a fresh interpreter: `python -I verify.py model.pt samples.pt`
prints `correct total`. It imports nothing of this project, as a user's program would not.
"""

from __future__ import annotations

import sys

import torch


def main(model_file: str, samples_file: str) -> None:
    """Print the number of correct answers and of samples."""
    model = torch.jit.load(model_file)
    samples = torch.load(samples_file, weights_only=True)
    with torch.inference_mode():
        answers = model(samples["images"]).argmax(1)
    correct = int((answers == samples["digits"]).sum())
    sys.stdout.write(f"{correct} {len(answers)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
