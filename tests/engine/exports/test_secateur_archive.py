"""The archive as an export, unpacked and run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from secateur.archive import unpack
from torch import nn

from engine.exports import secateur_archive
from engine.exports.request import ExportFailed
from engine.exports.secateur_archive import packed_indices
from engine.quantisation.codebook import codebook_of
from engine.quantisation.packaging import packaged
from engine.quantisation.sparse import encode_sparse
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program


@pytest.fixture
def shared(asked):
    """A request for a model whose first weight is stored as a codebook of 11 values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 4))
    encoding = codebook_of("0.weight", model[0].weight, size=11)
    with torch.no_grad():
        model[0].weight.copy_(encoding.decode())
    request = asked(model, (torch.randn(3, 64),), format="secateur", weights="stored")
    program_file = request.folder.parent / "program.pt"
    request.model.rename(program_file)
    program = Program.load(program_file)
    packaged(program, {"0.weight": encoding}, decode="at_load").save(request.model)
    plain = {"scheme": "codebook", "decode": "at_load", **encoding.to_plain()}
    return replace(request, program_file=program_file, encodings={"0.weight": plain})


@pytest.mark.parametrize("weights", ["stored", "dense"])
def test_what_comes_out_computes_the_same(weights, shared, checked_here, tmp_path):
    checked_here(secateur_archive)

    made = secateur_archive.write(replace(shared, options={"weights": weights}))

    assert made.relative_error <= made.tolerance
    assert made.path.name == "compact.secateur"
    assert "unpacked" in made.verified_by
    unpack(made.path, tmp_path / "out.pt")
    found = torch.jit.load(tmp_path / "out.pt")
    expected = torch.jit.load(shared.model)
    assert torch.equal(found(shared.inputs[0]), expected(shared.inputs[0]))
    # In floating point the weight takes 25,600 bytes, its indices about 2,700.
    assert made.path.stat().st_size < 2700 + 5200
    sizes = [path.stat().st_size for path in (tmp_path / "out.pt", shared.model)]
    assert (sizes[0] > 2 * sizes[1]) == (weights == "dense")


def test_a_fresh_process_runs_it(shared):
    assert secateur_archive.write(shared).relative_error == 0


def test_what_is_no_torchscript_fails_the_export(shared):
    _ = shared.delivered, shared.cases
    shared.model.write_bytes(b"no zip")

    with pytest.raises(ExportFailed, match="no TorchScript file"):
        secateur_archive.write(shared)


def test_packed_parts_are_known_by_their_bytes():
    weight = torch.randn(8, 30)
    encodings = {
        "codebook": codebook_of("w", weight, size=20),
        "weight_only": encode_weight_only(weight, bits=4, group_size=10),
        "mask": encode_sparse(weight * (torch.rand(8, 30) < 0.5)),
        "gaps": encode_sparse(weight * (torch.rand(8, 30) < 0.02)),
    }

    found = packed_indices(encodings)

    for name, encoding in encodings.items():
        for part, (count, width) in encoding.packed_parts.items():
            one = packed_indices({name: encoding})
            assert len(one) == len(encoding.packed_parts)
            assert one.items() <= found.items()
            assert len(encoding.parts[part]) >= count * width // 8
    assert encodings["codebook"].packed_parts == {"indices": (240, 5)}
    assert encodings["weight_only"].packed_parts == {"packed": (240, 4), "zero": (24, 4)}
    assert encodings["mask"].packed_parts == {"places": (240, 1)}
    assert encodings["gaps"].width > 0
