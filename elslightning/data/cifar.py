"""CIFAR-10 as distributed: batches pickled by Python 2, read without running anything that a file names."""

import gzip
import io
import pickle
import pickletools
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from elslightning.data.request import AbsentError, Request, Split
from elslightning.system.errors import InputError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{n}" for n in range(1, 6))
VAL = ("test_batch",)
_ROW = 3 * 32 * 32
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_MOST_BYTES = 2**26
_MOST_TUPLES = 1000  # a batch has four
_NAMES = (*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype")


def cifar10(request: Request) -> tuple[Split, Split]:
    """CIFAR-10, 32×32, 3 channels, from its folder or its archive; the test batch is for validation.

    Raises:
        InputError: if a batch is missing, damaged, or not a batch of CIFAR-10.
    """
    batches = _find(request.folder(f"the folder that holds {FOLDER}/ or {ARCHIVE}"))
    train, val = ([read_batch(*batches[name]) for name in names] for names in (TRAIN, VAL))
    return _join(train), _join(val)


def read_batch(place: str, content: bytes) -> Split:
    """The images (n, 3, 32, 32), bytes, and labels (n,) of one pickled batch; `place` is its name in messages.

    Raises:
        InputError: if it is damaged, not a batch of CIFAR-10, or names anything but arrays.
    """
    batch = read_pickle(place, content)
    if not isinstance(batch, dict):
        raise InputError(f"{place} is not a batch of CIFAR-10: it holds no dictionary")
    # Python 2 wrote its strings as bytes; a file written since may have texts as keys.
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    rows = _array(place, data)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise InputError(f"{place} is not a batch of CIFAR-10: its labels are not a list of numbers 0 … 9")
    if len(labels) != len(rows):
        raise InputError(f"{place} has {len(labels)} labels for {len(rows)} images")
    return Split(torch.from_numpy(rows).reshape(-1, 3, 32, 32), torch.tensor(labels))


class _Call:
    """Stands for something that a pickle names, and for what calling it would make: it keeps what it is given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: tuple[Any, ...] = ()
        self.state: Any = None

    def __call__(self, *arguments: Any) -> "_Call":
        made = _Call(self.name)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Makes dictionaries, lists, texts and numbers; of what a file names it looks up and calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        place = f"{module}.{name}"
        if place not in _NAMES:
            raise pickle.UnpicklingError(f"it names {place[:100]!r}, for which data has no use")
        return _Call(place)


def read_pickle(place: str, content: bytes) -> Any:
    """Unpickles plain data; numpy arrays come as `_Call`, unevaluated, and texts of Python 2 as bytes.

    Raises:
        InputError: if the pickle is damaged or names anything else; nothing that it names is run.
    """
    try:
        # The unpickler allocates whatever a length or a position says, and hashing of tuples in tuples without end
        # overflows the stack: a damaged file could stop Python, not only the reading. genops itself checks lengths.
        tuples = 0
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
                raise pickle.UnpicklingError(f"memo position {argument} in {len(content)} bytes")
            tuples += opcode.name.startswith("TUPLE")
            if tuples > _MOST_TUPLES:
                raise pickle.UnpicklingError(f"more than {_MOST_TUPLES} tuples")
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{place} cannot be read as a batch of CIFAR-10: {reason}") from error


def _array(place: str, data: Any) -> np.ndarray:
    """The array of bytes (n, 3072) that a `_Call` describes."""
    match data:
        case _Call(name=name, state=(_, (int(n), int(width)), _Call(arguments=(kind, *_)), columns_first, bytes(raw))):
            known = name in _RECONSTRUCT and kind in ("u1", b"u1") and 0 < n <= len(raw) and width == _ROW
        case _:
            known = False
    if not known:
        raise InputError(f"{place} is not a batch of CIFAR-10: its data is not an array of bytes in rows of {_ROW}")
    if len(raw) != n * width:
        raise InputError(f"{place} has {len(raw)} bytes for {n} images, where each has {_ROW}")
    rows = np.frombuffer(raw, np.uint8).reshape((n, width), order="F" if columns_first else "C")
    return rows.copy(order="C")


def _find(root: Path) -> dict[str, tuple[str, bytes]]:
    """Place and content of every batch, from `root`, `root/cifar-10-batches-py`, or the archive in `root`."""
    names = (*TRAIN, *VAL)
    for folder in (root, root / FOLDER):
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return {name: _read(folder / name) for name in names}
        if len(missing) < len(names):
            raise AbsentError(f"{missing[0]} is not in {folder}: CIFAR-10 has {', '.join(names)}")
    if (root / ARCHIVE).is_file():
        return _unpack(root / ARCHIVE)
    raise AbsentError(f"data.root={root} holds neither {FOLDER}/ nor {ARCHIVE}")


def _read(path: Path) -> tuple[str, bytes]:
    try:
        return str(path), path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _unpack(path: Path) -> dict[str, tuple[str, bytes]]:
    names = (*TRAIN, *VAL)
    found = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if place.parent.name == FOLDER and place.name in names and member.isfile():
                    if member.size > _MOST_BYTES:  # one with holes may say anything
                        raise ValueError(f"{place} has {member.size} bytes, where a batch has 31 million")
                    file = archive.extractfile(member)
                    found[place.name] = f"{place} in {path}", file.read() if file else b""
            while stream.read(1 << 20):  # to the checksum at the end
                pass
    except Exception as error:  # damaged bytes make tarfile raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}") from error
    for name in names:
        if name not in found:
            raise InputError(f"{FOLDER}/{name} is not in {path}")
    return found


def _join(splits: list[Split]) -> Split:
    labels = [split.labels for split in splits if split.labels is not None]
    return Split(torch.cat([split.images for split in splits]), torch.cat(labels))
