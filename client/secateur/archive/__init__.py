"""The archive for download: a TorchScript file in few bytes.

    pack(model, archive)          writes one
    unpack(archive, model)        gives the file back, byte for byte

`secateur.archive.container` describes the format. No torch is needed on either side.
"""

from secateur.archive.pack import Packed, PackedIndices, content_key, pack
from secateur.archive.unpack import (
    LIMIT_BYTES,
    ArchiveDamaged,
    ArchiveTooLarge,
    check,
    unpack,
)

__all__ = [
    "LIMIT_BYTES",
    "ArchiveDamaged",
    "ArchiveTooLarge",
    "Packed",
    "PackedIndices",
    "check",
    "content_key",
    "pack",
    "unpack",
]
