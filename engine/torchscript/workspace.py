"""Memory for large float64 tensors that live one after the other.

Fresh memory costs more than what is written to it: the system hands it out page by page, zeroed,
and takes it back when the tensor dies. Converting a float32 matrix into memory that is already
there takes an eighth of the time. A piece of memory is used again once no tensor refers to it,
views included: torch counts the references to a storage.
"""

from __future__ import annotations

import torch


class Workspace:
    """Pieces of memory, each as large as the largest tensor that was put there."""

    def __init__(self) -> None:
        self._pieces: list[torch.Tensor] = []

    def converted(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in float64 with the same strides, on the same device.

        The copy may be written to; its memory is handed out again when the last tensor over it is
        gone. A tensor that is sparse, overlaps itself or has gaps gets memory of its own.
        """
        if tensor.layout != torch.strided or not _dense(tensor):
            return tensor.to(torch.float64, copy=True)
        piece = self._piece(tensor.numel(), tensor.device)
        return piece.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def _piece(self, elements: int, device: torch.device) -> torch.Tensor:
        """The smallest free piece that is large enough; a new one replaces all free ones."""
        free = [piece for piece in self._pieces if _references(piece) == 1]
        fitting = [piece for piece in free if piece.numel() >= elements and piece.device == device]
        if fitting:
            return min(fitting, key=torch.Tensor.numel)
        self._pieces = [piece for piece in self._pieces if _references(piece) > 1]
        free.clear()  # before the new one is made: both together are not needed
        made = torch.empty(elements, dtype=torch.float64, device=device)
        self._pieces.append(made)
        return made


def _dense(tensor: torch.Tensor) -> bool:
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _references(piece: torch.Tensor) -> int:
    """Tensors over the memory of a piece, itself included."""
    # The storage that is made to ask is one reference more.
    return int(torch._C._storage_Use_Count(piece.untyped_storage()._cdata)) - 1
