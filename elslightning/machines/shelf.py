"""A shelf: indices in a folder, for machines of later processes; none is trusted before it is looked through."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from elslightning.machines.index import Candidates, Cells, beginnings
from elslightning.machines.lanes import PART
from elslightning.system.errors import InputError, warn
from elslightning.system.files import replacing
from elslightning.system.locking import alone
from elslightning.system.tensorfiles import SUFFIX, read_tensors, write_tensors

FORMAT = 1
"""Goes up when the same candidates are put into other cells, or described in another way."""
PATIENCE = 3600.0
"""Seconds to wait for an index that another process is making."""


def check_folder(index: str | Path | None) -> None:
    """Raises InputError for what can be no folder of indices: a file, or a place where nothing may be written."""
    if index is None:
        return
    if not isinstance(index, str | Path) or not str(index):
        raise InputError(f"index must be a folder that indices are kept in, or null, not {index!r}")
    there = Path(index).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"index={index} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"index={index} cannot be written: {there} is read-only")


class Shelf:
    """The indices of a bank in a folder, each in a file, found by all that it depends on.

    A file that is damaged, or does not fit the candidates, is made anew; a disk that is full keeps none, and says so.

    Args:
        folder: of the files, those of other banks among them; made with the first one.
        bank: what tells the bank and its border from others.
    """

    def __init__(self, folder: str | Path, bank: str) -> None:
        self.folder, self.bank = Path(folder), bank

    def get(self, key: object, candidates: Candidates, make: Callable[[], Cells], wait: bool) -> Cells | None:
        """The index of some candidates, which is made and kept if it is not there.

        Args:
            key: what tells them, and how they are divided into cells, from others of the bank.
            make: makes it.
            wait: for another process that is making it, an hour at most; otherwise that gives None.
        """
        path = self.path(key)
        found = self.take(path, candidates)
        if found is not None:
            return found
        with alone(path, PATIENCE if wait else 0) as free:
            if not (free or wait):
                return None
            found = self.take(path, candidates)  # another may have made it meanwhile
            if found is None:
                found = make()
                self.put(path, found)
            return found

    def path(self, key: object) -> Path:
        """The file of an index."""
        name = hashlib.sha256(f"{FORMAT} {self.bank} {key!r}".encode()).hexdigest()
        return self.folder / f"{name}{SUFFIX}"

    def take(self, path: Path, candidates: Candidates) -> Cells | None:
        """The index of these candidates in a file; None where there is none that is whole."""
        if not path.exists():
            return None
        try:
            tensors, _ = read_tensors(path)
            found = Cells(**{name: tensor.numpy() for name, tensor in tensors.items()})
            _check(found, candidates)
        except (InputError, TypeError) as error:
            warn(f"{path} is not an index of these images, and is made anew: {error}")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return found

    def put(self, path: Path, cells: Cells) -> None:
        """Writes an index, whole or not at all."""
        try:
            with replacing(path) as temporary:
                write_tensors(temporary, {name: torch.from_numpy(value) for name, value in vars(cells).items()}, {})
        except OSError as error:
            warn(f"the index of {cells.starts[-1]:,} candidates is not kept: {path}: {error.strerror or error}")


def _check(cells: Cells, candidates: Candidates) -> None:
    """Raises InputError unless compiled loops stay inside these arrays, and inside the candidates."""
    count, dim, parts = len(candidates), candidates.dim, len(cells.starts) - 1
    directions = len(cells.steps)
    wanted = {
        "order": ((count,), np.int32),
        "starts": ((parts + 1,), np.int64),
        "centre": ((dim,), np.float32),
        "basis": ((dim, directions), np.float32),
        **dict.fromkeys(("means", "variances", "centres"), ((parts, directions), np.float32)),
        "rest": ((parts,), np.float32),
        "steps": ((directions,), np.float32),
        "places": ((parts,), np.int64),
        "codes": ((len(cells.codes),), np.uint8),
    }
    for name, (shape, dtype) in wanted.items():
        value = getattr(cells, name)
        if value.shape != shape or value.dtype != dtype:
            raise InputError(f"{name} is {value.dtype} {value.shape}, not {np.dtype(dtype)} {shape}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(f"{name} is not finite")
    sizes = np.diff(cells.starts)
    if parts < 1 or not 0 < directions <= PART or cells.starts[0] != 0 or cells.starts[-1] != count or sizes.min() < 0:
        raise InputError("its cells do not hold as many candidates as there are")
    places = beginnings(sizes, directions)
    if not np.array_equal(cells.places, places[:-1]) or len(cells.codes) != places[-1]:
        raise InputError("its codes are not where its cells say")
    if cells.order.min() < 0 or cells.order.max() >= count or np.bincount(cells.order).max() > 1:
        raise InputError("its cells do not hold every candidate once")
