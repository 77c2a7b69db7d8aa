"""The result for download, in few bytes: `secateur unpack` gives the TorchScript file back.

The archive holds the delivered file, or with `weights: dense` the same program with its weights in
floating point: where few values are shared the archive finds them by itself, and no decoders are
in the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from secateur.archive import PackedIndices, content_key, pack, unpack
from secateur.errors import SecateurError

from engine.certify import relative_error
from engine.exports.fresh import run_fresh
from engine.exports.request import Exported, ExportFailed, ExportRequest
from engine.quantisation.encoding import Encodings
from engine.quantisation.quantised import Quantised
from engine.torchscript.stored_values import save_calls

_CHECK = Path(__file__).with_name("checks") / "libtorch.py"


def write(request: ExportRequest) -> Exported:
    """Write the archive, unpack it, and run what comes out in a fresh process.

    Raises:
        ExportFailed: the file cannot be packed, or what comes out does not run.
    """
    dense = request.options["weights"] == "dense"
    source = (request.program_file if dense else None) or request.model
    held = Quantised.from_plain({"encodings": request.encodings, "lowering": None})
    archive, folder = request.folder / "compact.secateur", request.folder / "unpacked"
    folder.mkdir()
    try:
        packed = pack(source, archive, indices=packed_indices(held.encodings))
        unpack(archive, folder / "model.pt", limit=packed.unpacked_size)
    except SecateurError as error:
        raise ExportFailed(error.title, hint=error.hint) from error
    calls = [(case.inputs, case.expected) for case in request.cases]
    try:
        save_calls(folder / "example.pt", request.delivered, calls, {})
    except RuntimeError as error:
        raise ExportFailed(
            f"the example cannot be stored as TorchScript: {str(error).splitlines()[0]}"
        ) from error
    answers = request.folder / "answers.pt"
    run_fresh(_CHECK, folder, answers, seconds=request.seconds)
    found = torch.load(answers, weights_only=True)
    file, size = source.stat().st_size, packed.size
    return Exported(
        path=archive,
        verified_by=f"unpacked, with its SHA-256, and run by torch {torch.__version__}",
        relative_error=max(relative_error(expected, own) for expected, own in found),
        tolerance=request.tolerance,
        batch_sizes=tuple(case.batch_size for case in request.cases),
        any_batch=len(request.cases) > 1,
        notes=(f"{size} bytes for a file of {file}: {file / size:.1f} times smaller",),
    )


def packed_indices(encodings: Encodings) -> dict[str, PackedIndices]:
    """What is known of the stored tensors that are packed numbers, by their bytes."""
    found = {}
    for encoding in encodings.values():
        parts = encoding.parts
        for name, (count, width) in encoding.packed_parts.items():
            key = content_key(parts[name].cpu().numpy().tobytes())
            found[key] = PackedIndices(count=count, width=width)
    return found
