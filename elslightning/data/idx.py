"""The IDX files of MNIST and its relatives, plain or gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from elslightning.data.request import AbsentError, Request, Split
from elslightning.system.errors import InputError

_UNSIGNED_BYTE = 0x08
_PART = 2**24


def read_idx(path: str | Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """Reads an IDX file of unsigned bytes: images have 3 dimensions (n, height, width), labels 1.

    Raises:
        InputError: naming the file, if it is missing, truncated, or something else.
    """
    path = Path(path)
    size = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(size)
            if len(header) < size or header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
                raise InputError(f"{path} is not an IDX file of bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            expected = math.prod(shape)
            # No more than the header says, for a packed file may be a thousand times longer than it looks; and in
            # parts, for the header may say anything.
            content, more = bytearray(), b"."
            while more and len(content) <= expected:
                more = file.read(min(_PART, expected + 1 - len(content)))
                content += more
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(content) != expected:
        found = f"more than {size + expected}" if len(content) > expected else len(content) + size
        raise InputError(f"{path} has {found} bytes where its header {shape} says {size + expected}")
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape))


def find_idx(root: str | Path, name: str, folder: str) -> Path:
    """The file `name`, gzipped or not, in `root`, `root/raw` or torchvision's `root/<folder>/raw`.

    Raises:
        AbsentError: if it is in none of them.
    """
    root = Path(root)
    places = [root, root / "raw", root / folder / "raw"]
    for place in places:
        for candidate in (place / name, place / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    raise AbsentError(
        f"{name} or {name}.gz is not in data.root={root} (nor in its raw/ or {folder}/raw/): "
        "give the folder that holds the four IDX files"
    )


def read_idx_pairs(request: Request, folder: str) -> tuple[Split, Split]:
    """The images and labels of `train-*` for training, of `t10k-*` for validation; `folder` is torchvision's name.

    Raises:
        InputError: if a file is missing or damaged, or labels and images do not match.
    """
    root = request.folder("the folder that holds its four IDX files")
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    train, val = ([find_idx(root, f"{prefix}-{kind}", folder) for kind in kinds] for prefix in ("train", "t10k"))
    return _read_pair(*train), _read_pair(*val)


def _read_pair(images_path: Path, labels_path: Path) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise InputError(f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path}")
    return Split(images[:, None], labels.long())
