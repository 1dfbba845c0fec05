"""What goes wrong and can be said in one line to whoever started it."""

import sys
from typing import ClassVar


class ElslightningError(Exception):
    """Something went wrong, and the message says to people what, in one line: no traceback is needed.

    Attributes:
        exit_code: what the command line ends with.
    """

    exit_code: ClassVar[int] = 1


class InputError(ElslightningError, ValueError):
    """Bad input, described in one line per problem: the value, the place, and what would be right.

    Args:
        problems: one or several; several become a first line with their number, and a line each.

    >>> print(InputError("a must be odd, not 2", "b is missing"))
    there are 2 problems:
      a must be odd, not 2
      b is missing
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        problems = self.problems = tuple(map(_line, problems))
        one = len(problems) == 1
        super().__init__("\n  ".join(problems if one else (f"there are {len(problems)} problems:", *problems)))


def _line(text: str) -> str:
    """A text in one line: what comes from files may hold line breaks, or move the cursor of a terminal."""
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


class LaunchError(InputError):
    """What keeps not only this job but the whole command from being run as it was started."""


class LostProcessError(ElslightningError):
    """One of several processes ended, and left the others waiting."""


class VanishedError(ElslightningError):
    """The directory that a run works in is gone, or another one has taken its place."""


class DivergedError(ElslightningError):
    """A training came to numbers that are not finite."""


def note(message: str) -> None:
    """Says, in a line on stderr, what was understood of the input."""
    print(f"elslightning: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """Says, in a line on stderr, what is doubtful but no error."""
    print(f"elslightning: warning: {message}", file=sys.stderr)


def kind(value: object) -> str:
    """What a value is, for errors: its type, of a tensor its dtype, and of a numpy array what makes a tensor of it."""
    if type(value).__module__ == "numpy":
        return f"a numpy {type(value).__name__}: torch.from_numpy makes one of an array"
    dtype = getattr(value, "dtype", None)
    return f"{type(value).__name__} of {dtype}" if dtype is not None else type(value).__name__
