"""Arrays in `.npz` files, of whoever wrote them: numbers only, and no more of them than the file can hold."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elslightning.system.errors import InputError

_INFLATED, _RATIO = 256 * 2**20, 32
"""Packing makes images of noise hardly shorter, noise of two colours seventeenfold; of one colour, images may be as
long as the first says."""


def _longest(path: Path) -> int:
    """The bytes that a packed file may become: many of few are no images, but meant to fill the memory."""
    return max(_INFLATED, _RATIO * path.stat().st_size)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file by name; none if it is not there.

    Raises:
        InputError: naming the file, if it is damaged or holds anything but numbers.
    """
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:  # numpy does not always read as far as the checksum
            size, most = sum(entry.file_size for entry in archive.infolist()), _longest(path)
            if size > most:
                raise InputError(
                    f"{path} is refused: its {path.stat().st_size} bytes would become {size}, and at most {most} of so "
                    "few are read"
                )
            if (broken := archive.testzip()) is not None:
                raise InputError(f"{path} is damaged: {broken} does not have its checksum")
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except InputError:
        raise
    except Exception as error:  # damaged bytes make numpy and zipfile raise nearly anything
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error
    found = {}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise InputError(f"{path} is damaged: {name} is not an array of numbers")
        # numpy may hold numbers in a width or an order of bytes that torch does not have.
        known = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
        found[name] = torch.from_numpy(array.astype(known, copy=False))
    return found
