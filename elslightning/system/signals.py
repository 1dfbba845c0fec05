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


_received: list[type[BaseException]] = []
"""What the signals raised that came since the outermost `terminable` began."""


def stop_behind(error: BaseException) -> BaseException | None:
    """The stop that an error was raised in the midst of, if there is one: libraries that are stopped while they put
    something together may raise what went wrong with that in its place, and may not say what came before it."""
    seen: list[BaseException | None] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, STOPS):
            return one
        if one is not None and not any(one is other for other in seen):
            seen.append(one)
            todo += [one.__cause__, one.__context__]
    return _received[-1]() if _received else None


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block, the first SIGTERM raises `Terminated` in the main thread; further ones are ignored, so that
    what is being put away can be. Where SIGTERM has another meaning already, it keeps it. Ctrl-C raises what it does;
    both are known to `stop_behind` from then on."""
    mine = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    here = threading.current_thread() is threading.main_thread()
    taken = {number: before for number, before in mine.items() if here and signal.getsignal(number) is before}

    def terminate(number: int, frame: FrameType | None) -> None:
        if Terminated not in _received:
            _received.append(Terminated)
            raise Terminated

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.append(KeyboardInterrupt)
        raise KeyboardInterrupt

    handlers = {signal.SIGTERM: terminate, signal.SIGINT: interrupt}
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
        if taken:
            _received.clear()


@contextmanager
def undisguised() -> Iterator[None]:
    """Raises KeyboardInterrupt or `Terminated` where Lightning, stopped by either, ends the process by itself, with
    exit code 1 and 0, and where a library raises something else in its place. Lightning may leave Ctrl-C ignored; it
    means afterwards what it meant before."""
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
    except Exception as error:
        behind = stop_behind(error)
        if behind is not None:
            raise behind from error
        raise
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
