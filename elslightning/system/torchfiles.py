"""Files of torch.save, taken apart without loading them."""

import math
import zipfile
from pathlib import Path
from typing import Any

from elslightning.system.errors import InputError
from elslightning.system.pickled import Call, Name
from elslightning.system.pickles import read_pickle

_ARCHIVE = b"PK\x03\x04"
# How torch.save began a file before it wrote zip archives.
_OLD_TORCH = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")


class TorchFile:
    """A file of `torch.save`: an archive of a pickle and, apart from it, the bytes of tensors; none compressed.

    Args:
        path: the file.

    Attributes:
        pickle: the bytes of the pickle.
        size: bytes of the file.

    Raises:
        InputError: naming the file, if it is missing, damaged, or something else.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        if not _head(path).startswith(_ARCHIVE):
            raise InputError(f"{path} is not a file of torch.save")
        self.size = self._unread = Path(path).stat().st_size
        try:
            self._archive = zipfile.ZipFile(path)
        except Exception as error:  # damaged bytes make zipfile raise nearly anything
            raise InputError(f"{path} is damaged: {_reason(error)}") from error
        pickles = [name for name in self._archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise InputError(f"{path} is not a file of torch.save")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in self._archive.namelist() and self.read("byteorder") != b"little":
            raise InputError(f"{path} was written on a machine with another order of bytes")
        self.pickle = self.read("data.pkl")

    def read(self, name: str) -> bytes:
        """The content of an entry of the archive; all that is read together is no longer than the file."""
        try:
            entry = self._archive.getinfo(self._folder + name)
            if entry.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{self._path} is not a file of torch.save: it is compressed")
            self._unread -= entry.file_size
            if self._unread < 0:
                raise InputError(f"{self._path} is damaged: its entries are longer than the file")
            return self._archive.read(entry)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self._path} is damaged: {_reason(error)}") from error

    def length(self, name: str) -> int:
        """The bytes of an entry of the archive, which are not read."""
        try:
            return self._archive.getinfo(self._folder + name).file_size
        except KeyError as error:
            raise InputError(f"{self._path} is damaged: it has no {name}") from error

    def verify(self) -> None:
        """Holds every entry against its checksum.

        Raises:
            InputError: naming the first one that is damaged; also for an archive that different programs could read
                differently, and for compressed entries.
        """
        entries = self._archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries) or self._archive.comment:
            raise InputError(f"{self._path} is not a file of torch.save: it has entries of the same name, or a comment")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise InputError(f"{self._path} is not a file of torch.save: it is compressed")
        if sum(entry.file_size for entry in entries) > self.size:
            raise InputError(f"{self._path} is damaged: its entries are longer than the file")
        try:
            broken = self._archive.testzip()
        except Exception as error:
            raise InputError(f"{self._path} is damaged: {_reason(error)}") from error
        if broken is not None:
            raise InputError(f"{self._path} is damaged: {broken} does not have its checksum")


def check_loadable(path: str | Path) -> None:
    """Finds out, before anything is loaded, whether `torch.load` may be given a file: it is undamaged, names nothing
    but tensors and plain data, and its tensors take no more memory than it has bytes, or twice that.

    Raises:
        InputError: naming the file, if not.
    """
    file = TorchFile(path)
    file.verify()
    if len(file.pickle) > _LONGEST_PICKLE:
        raise InputError(f"{path} has a pickle of {len(file.pickle)} bytes; at most {_LONGEST_PICKLE} are read")
    extents = _Extents(file)
    read_pickle(file.pickle, str(path), _NAMES, extents.calls, extents.storage)


# Every byte of a pickle can become an object of sixty.
_LONGEST_PICKLE = 4 * 2**20
_ITEMS = {
    **dict.fromkeys(("torch.DoubleStorage", "torch.LongStorage", "torch.ComplexFloatStorage"), 8),
    **dict.fromkeys(("torch.FloatStorage", "torch.IntStorage"), 4),
    **dict.fromkeys(("torch.HalfStorage", "torch.BFloat16Storage", "torch.ShortStorage"), 2),
    **dict.fromkeys(("torch.CharStorage", "torch.ByteStorage", "torch.BoolStorage"), 1),
    "torch.ComplexDoubleStorage": 16,
}
"""Bytes of a number, by the type of storage."""
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_NAMES = frozenset({*_ITEMS, *(f"torch.{name}" for name in _DTYPES)})
_TENSOR, _OTHER = Name("a tensor"), Name("an object")


class _Extents:
    """Looks at what the tensors of a file take up; what it is called with comes from the file, of any type and value.

    Args:
        file: whose entries hold the numbers.
    """

    def __init__(self, file: TorchFile) -> None:
        self._file, self._taken = file, 0
        self.calls: dict[str, Call] = {
            "collections.OrderedDict": lambda: {},
            "collections.Counter": lambda counts: counts,
            "builtins.set": lambda values: values,
            "__builtin__.set": lambda values: values,
            "_codecs.encode": lambda text, encoding: _OTHER,
            "torch.Size": lambda sizes: sizes,
            "torch.device": lambda *place: _OTHER,
            "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
        }

    def storage(self, identity: Any) -> tuple[int, int]:
        """The bytes of a number and the count of them, from `("storage", type, key, location, count)`."""
        _, kind, key, _, count = identity
        if not (isinstance(kind, Name) and isinstance(key, str) and isinstance(count, int)):
            raise TypeError
        if kind.text not in _ITEMS:
            raise InputError(f"its numbers are of {kind.text}, which are not read")
        if self._file.length(f"data/{key}") != count * _ITEMS[kind.text]:
            raise InputError(f"the storage {key} does not have the length that is given for it")
        return _ITEMS[kind.text], count

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> Name:
        """A tensor within a storage, which others may share."""
        item, count = storage
        check_extent(offset, size, stride, count)
        self._taken += item * math.prod(size)
        if self._taken > 2 * self._file.size:
            raise InputError("its tensors are many times as long as the file")
        return _TENSOR


def check_extent(offset: Any, size: Any, stride: Any, count: int) -> None:
    """Asks of a tensor that it lies within a storage of so many numbers, and has no more of them.

    Args:
        offset, size, stride: as a file gives them: of any type and value.
        count: of the storage.

    Raises:
        InputError: if it does not.
        TypeError: if these are not what a tensor has.
    """
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MOST_DIMENSIONS):
        raise TypeError
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise TypeError
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True) if n > 1)
    if math.prod(size) and not (math.prod(size) <= count and last < count):
        raise InputError("a tensor does not fit into its storage")


_MOST_DIMENSIONS = 8


def read_plain(path: str | Path) -> Any:
    """The plain data in a file written by `torch.save` or `pickle.dump`, see `read_pickle`.

    Raises:
        InputError: naming the file, if it is missing, damaged, or holds anything else.
    """
    data = TorchFile(path).pickle if _head(path).startswith(_ARCHIVE) else Path(path).read_bytes()
    return read_pickle(data, str(path))


def _head(path: str | Path) -> bytes:
    """How a file begins."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(len(_OLD_TORCH))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if head == _OLD_TORCH:
        raise InputError(f"{path} is in the format of torch before 1.6: save it again with a newer one")
    return head


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
