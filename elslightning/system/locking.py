"""Locking: a run directory belongs to one run at a time, and a run to the directory it began in."""

import contextlib
import errno
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from elslightning.system.errors import InputError, VanishedError, warn

NAME = ".lock"
# What file systems of clusters answer that have none.
_WITHOUT = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# Whoever gives a directory back takes the file away: whoever had opened it by then needs to try again.
_SECONDS = 0.2


def new_directory(path: Path) -> Path:
    """Makes a directory that was not there before: of this name, or of this name with a number, from 2 on.

    Raises:
        OSError: if none can be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        directory = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            return directory
    raise AssertionError("numbers do not end")


@contextlib.contextmanager
def alone(path: Path, seconds: float) -> Iterator[bool]:
    """Whether nobody else is at work on a file, who does it like this, now or in so many seconds; then nobody is until
    the block ends, by a lock beside it. Whoever cannot lock at all is alone. Its folder is made if it is missing."""
    lock = FileLock(path.with_name(f"{path.name}{NAME}"), timeout=seconds)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError:  # a file system without locks, or without room
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # as in `Locks.release`; whoever waits for it looks for the file then
            Path(lock.lock_file).unlink()
        lock.release()


class Locks:
    """The directories that this process has to itself, until it releases them or ends, however it ends."""

    held: ClassVar[dict[Path, tuple[FileLock, int]]] = {}
    """By the file that is locked: its lock, and a descriptor that tells it from one of the same name."""

    @classmethod
    def take(cls, directory: str | Path) -> None:
        """Takes a directory, which exists; on a file system without locks, with a warning.

        Raises:
            InputError: if another run is at work there.
            OSError: if it cannot be written to.
        """
        path = (Path(directory) / NAME).absolute()
        if path in cls.held:
            return
        lock = FileLock(path, timeout=_SECONDS)
        try:
            with warnings.catch_warnings():
                # Of the file that it would make instead of a lock, which stays when the process is killed.
                warnings.simplefilter("error", UserWarning)
                lock.acquire()
        except Timeout as error:
            raise InputError(f"another run is at work in {directory}: wait, or choose another one") from error
        except (OSError, UserWarning) as error:
            if isinstance(error, OSError) and error.errno not in _WITHOUT:
                raise
            warn(f"{directory} is on a file system without locks: no other run may work in it meanwhile")
            path.touch()
        cls.held[path] = lock, os.open(path, os.O_RDWR)

    @classmethod
    def check(cls) -> None:
        """To be called before anything is written.

        Raises:
            VanishedError: if a directory that was taken, or the lock in it, is gone or another one: a second run may
                be at work there.
        """
        for path, (_, descriptor) in cls.held.items():
            if not _is_at(path, descriptor):
                raise VanishedError(
                    f"{path.parent} is no longer the directory that this run began in, or its {NAME} is gone: "
                    "nothing more is written"
                )

    @classmethod
    def release(cls, directory: str | Path | None = None) -> None:
        """Gives a directory back, or all of them, without a trace."""
        wanted = list(cls.held) if directory is None else [(Path(directory) / NAME).absolute()]
        for path in wanted:
            lock, descriptor = cls.held.pop(path)
            with contextlib.suppress(OSError):  # Windows takes no open file away, but its lock does when released
                if _is_at(path, descriptor):
                    path.unlink()
            os.close(descriptor)
            lock.release()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file of a descriptor is still there; open, it leaves its number to no other file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
