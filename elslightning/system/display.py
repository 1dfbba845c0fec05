"""Showing what was done: a display that fails is no failure of the work."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What is written to a pipe that nobody reads, and to a terminal that is gone.
_GONE = (errno.EPIPE, errno.EIO)


class Display:
    """A stream that writes what its encoding does not have as escapes, and nothing once nobody reads it.

    Args:
        stream: of text; what else it can do, this can do.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or does nothing."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._leave(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is held back, or does nothing."""
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Sends the rest nowhere, what the stream still holds and what other processes write to it included."""
        if error.errno not in _GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def display() -> Iterator[None]:
    """Within the block, standard output and errors are shown as far as they can be."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = ours = Display(sys.stdout), Display(sys.stderr)
    try:
        yield
    finally:
        for stream in ours:
            stream.flush()  # or the interpreter would, at its end, and fail
        sys.stdout, sys.stderr = before
