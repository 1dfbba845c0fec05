"""How a command ends that does not do what it was asked for: a line, and an exit code."""

import signal
import sys
import traceback
from typing import NoReturn

from elslightning.cli.arguments import follows
from elslightning.system.errors import ElslightningError, InputError
from elslightning.system.signals import EXIT_CODES, stop_behind

DEBUG = "--debug"
"""Shows the tracebacks of errors."""


def refuse(message: str) -> NoReturn:
    """Ends because of the input, in a line."""
    fail(InputError(message), debugging=False)


def fail(error: Exception, debugging: bool) -> NoReturn:
    """Says what went wrong, and ends with the exit code that stands for it; or ends as what it was stopped by."""
    if (stop := stop_behind(error)) is not None:
        raise stop from error
    if debugging:
        traceback.print_exception(error)
    if isinstance(error, ElslightningError):
        print(f"elslightning: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        print(f"elslightning: error: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(1)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    more = "" if debugging else f" ({DEBUG} shows where it came from)"
    print(f"elslightning: error: {reason}{more}", file=sys.stderr)
    sys.exit(1)


def say_stopped(stop: BaseException, what: str, number: signal.Signals) -> NoReturn:
    """Says that it was stopped, and how to go on if that is known."""
    if not follows():
        print("; ".join([f"elslightning: {what}", *getattr(stop, "__notes__", ())]), file=sys.stderr)
    sys.exit(EXIT_CODES[number])
