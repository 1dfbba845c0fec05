"""Progress bars: what is being done and the time left, of it and of all; in a log or a pipe, lines."""

import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.std import Bar

# Without the counts, which may be fractions of steps.
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
LINE_FORMAT = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}{postfix}]"
"""Where nothing can be written over."""
CELLS = 10
"""Of the bar of all, beside that of what is being done."""
EVERY = 30.0
"""Seconds between lines, where a bar is not seen on a terminal."""


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(4), duration(754), duration(7300)
    ('4 s', '13 min', '2.0 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Ahead(NamedTuple):
    """How far all of it is.

    Attributes:
        share: of its time that has gone by.
        seconds: that are left.
    """

    share: float
    seconds: float

    def __str__(self) -> str:
        """In words, such as "in all 37%, 16 min left"; with a bar on a terminal."""
        left = f"{duration(self.seconds)} left"
        if not sys.stderr.isatty():
            return f"in all {self.share:.0%}, {left}"
        charset = Bar.UTF if (sys.stderr.encoding or "").lower().startswith("utf") else Bar.ASCII
        return f"in all {self.share:.0%}|{Bar(self.share, CELLS, charset)}| {left}"


class Plan:
    """What is still to be done, for the time that all of it will take.

    Args:
        seconds: that each part is expected to take, by what bars say of it, in their order.
        last: seconds of what comes after these, whatever bars say of it.
    """

    TELLING = 0.02
    """The share of all that says how much faster or slower than expected it goes."""

    def __init__(self, seconds: Mapping[str, float], last: float = 0.0) -> None:
        self._seconds, self._last, self._begun = dict(seconds), last, time.monotonic()
        self._shares, self._first = dict[str, float](), dict[str, float]()
        self._after: float | None = None

    def ahead(self, what: str, share: float) -> Ahead | None:
        """How far all is when a share of `what` is done; None if that is not in the plan."""
        now = time.monotonic()
        if what in self._seconds and self._after is None:
            for before in self._seconds:
                if before == what:
                    break
                if self._shares.setdefault(before, 1.0) < 1:
                    self._shares[before] = 1.0
            self._first.setdefault(what, share)
            self._shares[what] = share
        elif what not in self._seconds and self._last and self._shares:
            self._shares = dict.fromkeys(self._seconds, 1.0)
            self._after = now if self._after is None else self._after
        else:
            return None
        total = sum(self._seconds.values()) + self._last
        done = sum(self._seconds[name] * (self._shares[name] - first) for name, first in self._first.items())
        pace = ((self._after or now) - self._begun) / done if done > self.TELLING * total else 1.0
        remaining = pace * (total - sum(self._seconds[name] * part for name, part in self._shares.items()))
        if self._after is not None:  # no bar says how much of the last is done
            remaining = max(1.0, remaining - (now - self._after))
        gone = now - self._begun
        return Ahead(gone / (gone + remaining) if remaining else 1.0, remaining)


_plan = Plan({})


def plan(seconds: Mapping[str, float], last: float = 0.0) -> None:
    """Has the bars from now on say what is left of all; see `Plan`."""
    global _plan
    _plan = Plan(seconds, last)


def left(what: str, share: float) -> str:
    """How far the plan is that there is, in words; nothing if `what` is not in it."""
    ahead = _plan.ahead(what, share)
    return "" if ahead is None else str(ahead)


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
        self._bar.set_postfix_str(left(what, done / total), refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Ends the bar that is shown, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
