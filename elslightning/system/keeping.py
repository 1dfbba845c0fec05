"""Keeping: results of long evaluations, until the work that they belong to is done."""

import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from elslightning import __version__
from elslightning.system.files import replacing

KEPT = ".kept"
"""The folder of a run directory that results are kept in while it is at work."""

Part: TypeAlias = Tensor | str | None
"""Something that a result depends on."""


class Kept:
    """Results in a file each, by what they were made from: work that was interrupted finds them when it starts again.

    Nothing needs to be said about what has changed since: a result is found only by the very same bytes, made by the
    same version of the package. A file that is damaged, of another name or another kind is made anew.

    Args:
        directory: of the files; made with the first one.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def __call__(self, parts: Sequence[Part], make: Callable[[], Tensor]) -> Tensor:
        """What `make` returns, now or earlier, on the device and in the dtype of now.

        Args:
            parts: all that the result depends on.
            make: makes it.
        """
        path = self.directory / f"{digest(parts)}.npy"
        kept = _read(path)
        if kept is not None:
            return kept.to(_device(parts))
        result = make()
        content = io.BytesIO()  # numpy on a full disk does not say that it is full
        np.save(content, result.cpu().numpy(), allow_pickle=False)
        with replacing(path) as temporary:
            # What follows the array is no matter to whoever reads one.
            temporary.write_bytes(content.getvalue() + _mark(path, content.getvalue()))
        return result

    def clear(self) -> None:
        """Forgets all: the work is done."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _mark(path: Path, content: bytes) -> bytes:
    """What stands behind the content of a file: by it, both it and its name are known to be the ones written."""
    return hashlib.sha256(path.name.encode() + content).digest()


def _read(path: Path) -> Tensor | None:
    """What was kept under this name; None if there is nothing, or it is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    length = len(content) - hashlib.sha256().digest_size
    if length < 0 or content[length:] != _mark(path, content[:length]):
        return None
    return torch.from_numpy(np.load(io.BytesIO(content[:length]), allow_pickle=False))


def digest(parts: Sequence[Part]) -> str:
    """A name for what a result depends on, the same for the same values, shapes and dtypes."""
    sha = hashlib.sha256(__version__.encode())
    for part in parts:
        if isinstance(part, Tensor):
            sha.update(f"{part.dtype} {tuple(part.shape)} {part.device.type};".encode())
            sha.update(np.ascontiguousarray(part.detach().cpu().numpy()).data)
        else:
            sha.update(f"{part!r};".encode())
    return sha.hexdigest()


def _device(parts: Sequence[Part]) -> torch.device:
    """Where the first tensor is."""
    return next((part.device for part in parts if isinstance(part, Tensor)), torch.device("cpu"))
