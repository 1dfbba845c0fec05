"""Files of torch.save, taken apart without loading them."""

import io
import zipfile
from pathlib import Path
from typing import Any

from elslightning.system.errors import InputError
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
        data = _read(path)
        if not data.startswith(_ARCHIVE):
            raise InputError(f"{path} is not a file of torch.save")
        self.size = self._unread = len(data)
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
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


def read_plain(path: str | Path) -> Any:
    """The plain data in a file written by `torch.save` or `pickle.dump`, see `read_pickle`.

    Raises:
        InputError: naming the file, if it is missing, damaged, or holds anything else.
    """
    data = _read(path)
    return read_pickle(TorchFile(path).pickle if data.startswith(_ARCHIVE) else data, str(path))


def _read(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if data.startswith(_OLD_TORCH):
        raise InputError(f"{path} is in the format of torch before 1.6: save it again with a newer one")
    return data


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
