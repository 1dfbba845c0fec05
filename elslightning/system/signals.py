"""Being stopped from outside: by Ctrl-C, and by SIGTERM, which clusters send before they take a machine back."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""What shells report of a process that a signal ended."""


class Terminated(BaseException):
    """What SIGTERM raises within `terminable`, as Ctrl-C raises KeyboardInterrupt."""


STOPS = (KeyboardInterrupt, Terminated)


def stop_behind(error: BaseException) -> BaseException | None:
    """The stop that an error was raised in the midst of, if there is one: libraries that are stopped while they put
    something together may raise what went wrong with that in its place."""
    seen: list[BaseException | None] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, STOPS):
            return one
        if one is not None and not any(one is other for other in seen):
            seen.append(one)
            todo += [one.__cause__, one.__context__]
    return None


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block, the first SIGTERM raises `Terminated` in the main thread; further ones are ignored, so that
    what is being put away can be. Where SIGTERM has another meaning already, it keeps it."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    received = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if not received:
            received = True
            raise Terminated

    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def undisguised() -> Iterator[None]:
    """Raises KeyboardInterrupt or `Terminated` where Lightning, stopped by either, ends the process by itself: with
    exit code 1 and 0. Lightning may leave Ctrl-C ignored; it means afterwards what it meant before."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException  # slow to import: not needed for help

    here, before = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as stop:
        raise Terminated from stop
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
