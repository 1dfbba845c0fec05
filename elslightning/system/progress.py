"""Progress bars: what is being done and the time left; in a log or a pipe, lines."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

# Without the counts, which may be fractions of steps.
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
LINE_FORMAT = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}{postfix}]"
"""Where nothing can be written over."""
EVERY = 30.0
"""Seconds between lines, where a bar is not seen on a terminal."""


class Lines:
    """Standard error for bars where it is no terminal: of all that they write, a line every `EVERY` seconds."""

    def __init__(self) -> None:
        self._written = time.monotonic()

    def write(self, text: str) -> int:
        now, shown = time.monotonic(), text.strip()
        if shown and now - self._written >= EVERY:
            self._written = now
            print(shown, file=sys.stderr, flush=True)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


_LINES = Lines()


def bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar on a terminal; lines where there is none.

    Args:
        iterable: what to go through with it, if anything.
        options: of tqdm.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, **options)
    # Every update may be the one that is due, and no other bar stands above.
    lines = {"file": _LINES, "bar_format": LINE_FORMAT, "miniters": 1, "mininterval": 1, "position": 0}
    return tqdm(iterable, **options | lines)


class Bars:
    """A `Progress` that shows one bar after the other, a new one whenever `what` changes."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: float, total: float) -> None:
        if what == self._what and self._bar is None and done >= total:
            return  # finished already
        if self._bar is None or what != self._what:
            self.close()
            self._what, self._bar = what, bar(total=total, desc=what, bar_format=BAR_FORMAT)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Ends the bar that is shown, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
