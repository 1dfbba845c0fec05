"""CIFAR-10 as distributed: batches pickled by Python 2, read without running anything that a file names."""

import gzip
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from elslightning.data.request import AbsentError, Request, Split
from elslightning.system.errors import InputError
from elslightning.system.pickled import Made, Name, made
from elslightning.system.pickles import read_pickle

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{n}" for n in range(1, 6))
VAL = ("test_batch",)
_ROW = 3 * 32 * 32
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_MOST_BYTES = 2**26
_ARRAY, _KIND = "numpy.ndarray", "numpy.dtype"


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
    try:
        batch = read_pickle(content, "its pickle", [_ARRAY], made([*_RECONSTRUCT, _KIND]))
    except InputError as error:
        raise InputError(f"{place} cannot be read as a batch of CIFAR-10: {error}") from error
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


def _array(place: str, data: Any) -> np.ndarray:
    """The array of bytes (n, 3072) that a pickle describes."""
    match data:
        case Made(
            name=name,
            arguments=(Name(), *_),
            state=(
                _,
                (int(n), int(width)),
                Made(name=of, arguments=(kind, *_)),
                bool(columns_first),
                bytes(raw),
            ),
        ):
            of_bytes = of == _KIND and kind in ("u1", b"u1")
            known = name in _RECONSTRUCT and of_bytes and 0 < n <= len(raw) and width == _ROW
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
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes, where a batch has 31 million")
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
