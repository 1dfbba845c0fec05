"""Locking: a run directory belongs to one run at a time."""

import errno
import fcntl
import os
from pathlib import Path
from typing import ClassVar

from elslightning.system.errors import InputError, warn

NAME = ".lock"
# What file systems of clusters answer that have none.
_WITHOUT = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class Locks:
    """The directories that this process has to itself, until it releases them or ends, however it ends."""

    held: ClassVar[dict[Path, int]] = {}

    @classmethod
    def take(cls, directory: str | Path) -> None:
        """Takes a directory, which exists; on a file system without locks, with a warning.

        Raises:
            InputError: if another run is at work there.
            OSError: if it cannot be written to.
        """
        path = (Path(directory) / NAME).absolute()
        while path not in cls.held:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    cls.held[path] = descriptor
                    return
            except BlockingIOError as error:
                os.close(descriptor)
                raise InputError(f"another run is at work in {directory}: wait, or choose another one") from error
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in _WITHOUT:
                    raise
                warn(f"{directory} is on a file system without locks: no other run may work in it meanwhile")
                cls.held[path] = descriptor
                return
            os.close(descriptor)  # whoever had it has just taken the file away

    @classmethod
    def release(cls) -> None:
        """Gives all directories back."""
        while cls.held:
            path, descriptor = cls.held.popitem()
            path.unlink(missing_ok=True)
            os.close(descriptor)
