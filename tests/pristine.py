"""A process that has imported what the tests have, and runs none of them: those that tests start are forked from it."""

import atexit
import contextlib
import multiprocessing
import os
import select
import shutil
import signal
import socket
import tempfile
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("fork")
MOMENT = 0.02
"""Between two looks at what has ended, in seconds."""
_address = Path()


def begin(*, first: Callable[[], Any]) -> None:
    """Starts it from the one that has collected the tests. It calls `first` when it is first asked for a process, and
    ends when all those have ended that may ask."""
    global _address
    _address = Path(tempfile.mkdtemp(), "pristine")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(_address))
    listener.listen(16)
    ended, kept = os.pipe()
    if os.fork():
        listener.close()
        os.close(ended)
        return
    try:
        os.close(kept)
        _serve(listener, ended, first)
    finally:
        shutil.rmtree(_address.parent, ignore_errors=True)
        os._exit(0)


def _serve(listener: socket.socket, ended: int, first: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: list[tuple[Any, Connection]] = []
    called = False
    while True:
        ready, _, _ = select.select([listener, ended], [], [], MOMENT if running else None)
        if ended in ready:
            return
        if listener in ready:
            connection = Connection(listener.accept()[0].detach())
            if not called:
                first()
                called = True
            with contextlib.suppress(EOFError, OSError):  # who asks may be ended before there is an answer
                process = FORK.Process(target=_run, args=connection.recv())
                process.start()
                running.append((process, connection))
                connection.send(process.pid)
        for process, connection in [one for one in running if not one[0].is_alive()]:
            with contextlib.suppress(OSError):  # nobody waits any more
                connection.send(process.exitcode)
            connection.close()
            running.remove((process, connection))


def _run(function: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave_to_the_first()
    function(*arguments)


def leave_to_the_first() -> None:
    """Has this process not do at its end what is to be done at the end of that which it was forked from."""
    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    atexit.register(weakref.finalize._exitfunc)  # type: ignore[attr-defined]


class Process:
    """A call of a function in a process of its own. As of `multiprocessing.Process`.

    Attributes:
        pid: of the process.
        exitcode: None while it runs.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(_address))
        self._connection = Connection(client.detach())
        self._connection.send((function, *arguments))
        self.pid: int = self._connection.recv()
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        self.join(0)
        return self._exitcode

    def join(self, timeout: float | None = None) -> None:
        if self._exitcode is None and self._connection.poll(timeout):
            self._exitcode = self._connection.recv()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)


def together(work: Callable[..., Any], *arguments: Any, count: int = 2) -> None:
    """Calls `work(rank, *arguments)` in several processes at once; if one fails, the others are ended."""
    processes = [Process(work, rank, *arguments) for rank in range(count)]
    try:
        while any(process.is_alive() for process in processes):
            assert not any(process.exitcode for process in processes), "a process failed, and says why above"
            time.sleep(MOMENT)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0] * count
