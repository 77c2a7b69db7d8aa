"""WebDataset samples: how many every split has, and what their files give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secateur.data_files.faults import DataFault
from secateur.data_files.image_folder import SPLITS
from secateur.data_files.shards import EXTENSIONS, Sample, columns_of, samples_of_shards
from secateur.resources import TensorInfo

from service.datasets.image_content import image_tensor
from service.datasets.image_header import ImageHeader, read_image_header
from service.datasets.npz_header import read_array_header
from service.datasets.samples import Content, File


def shards_content(files: Iterable[File]) -> Content:
    """What samples give, as far as it can be told before a recipe names their columns.

    Raises:
        DataFault: a file belongs to no sample, is damaged, or is missing in a sample.
    """
    splits: dict[str, int] = {}
    wanted: dict[str, dict[str, str]] = {}
    found: dict[str, _Column] = {}
    for sample, own in _with_files(files):
        split = sample.split
        splits[split] = splits.get(split, 0) + 1
        for extension, file in own.items():
            if extension.rpartition(".")[2] in EXTENSIONS:
                header = read_image_header(file.head(), file.name)
                found.setdefault(f"{split} {_alike(extension)}", _Column(file)).add(header)
            else:
                found.setdefault(f"{split} {extension}", _Column(file)).add(None)
        if split not in wanted:
            wanted[split] = _columns(sample)
        for extension in wanted[split].values():
            if _alike(extension) not in {_alike(one) for one in own}:
                raise DataFault(
                    f"Sample `{sample.key}` has no file `.{extension}`, which others have.",
                    hint="Every sample of a split has the same files; add it, or remove the "
                    "sample.",
                    where=sample.key,
                )
    tensors = [
        found[f"{split} {_alike(extension)}"].tensor(f"{split}/{name}")
        for split in SPLITS
        for name, extension in wanted.get(split, {}).items()
        if split != "unlabelled" or name.startswith("inputs/")
    ]
    if not splits:
        raise DataFault(
            "The shards hold no samples.", hint="Write samples into them.", where="train"
        )
    return Content(tensors, {split: splits[split] for split in SPLITS if split in splits})


class _Column:
    """What the files of one extension have in common; counted, not kept."""

    def __init__(self, first: File) -> None:
        self._first = first
        self._count = 0
        self._headers: set[ImageHeader] = set()

    def add(self, header: ImageHeader | None) -> None:
        self._count += 1
        if header is not None and len(self._headers) < 3:
            self._headers.add(header)

    def tensor(self, name: str) -> TensorInfo:
        if self._headers:
            shape = image_tensor(name, list(self._headers)).shape
            return TensorInfo(name=name, dtype="uint8", shape=[self._count, *shape[1:]])
        if self._first.name.endswith(".npy"):
            one = read_array_header(self._first.head(), self._first.name)
            return TensorInfo(name=name, dtype=one.dtype, shape=[self._count, *one.shape])
        return TensorInfo(name=name, dtype="int64", shape=[self._count])


def _with_files(files: Iterable[File]) -> Iterator[tuple[Sample, dict[str, File]]]:
    """Samples and their files; those of finished samples are let go."""
    kept: dict[int, File] = {}

    def names() -> Iterator[str]:
        for place, file in enumerate(files):
            kept[place] = file
            yield file.name

    for sample in samples_of_shards(names()):
        own = {extension: kept[place] for extension, place in sample.files.items()}
        last = max(sample.files.values())
        for place in [place for place in kept if place <= last]:
            del kept[place]
        yield sample, own


def _columns(sample: Sample) -> dict[str, str]:
    """Inputs and targets by their extension, or none where the recipe has to say."""
    try:
        return columns_of(sample, {})
    except DataFault:
        return {}


def _alike(extension: str) -> str:
    """One name for all extensions that stand for each other."""
    return "an image" if extension in EXTENSIONS else extension
