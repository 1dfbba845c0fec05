"""Values from files, which may stand for more than there is time for."""

from collections.abc import Callable
from typing import Any

from elslightning.system.errors import InputError

_MOST_LEVELS = 100


def refuse_endless(root: Any, place: str, most: int, parts_of: Callable[[Any], list[Any]]) -> None:
    """Refuses a value that, written out with all that it shares, is too long, too deep, or within itself.

    Args:
        root: the value.
        place: where it stands, for errors.
        most: the greatest number of values, and of letters and bytes in them, in all.
        parts_of: what is directly within a value.

    Raises:
        InputError: saying which of these it is.
    """
    # By identity: the length and the levels of what has been gone through.
    known: dict[int, tuple[int, int]] = {}
    begun: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting[-1]
        if id(value) in known:
            waiting.pop()
            continue
        parts = parts_of(value)
        if id(value) not in begun and parts:
            begun.add(id(value))
            if any(id(part) in begun and id(part) not in known for part in parts):
                raise InputError(f"{place} holds a value that is within itself")
            waiting += parts
            continue
        waiting.pop()
        below = [known[id(part)] for part in parts]
        length = 1 + sum(length for length, _ in below) + (len(value) if isinstance(value, str | bytes) else 0)
        levels = 1 + max((levels for _, levels in below), default=0)
        if levels > _MOST_LEVELS:
            raise InputError(f"{place} is nested more than {_MOST_LEVELS} levels deep")
        if length > most:
            raise InputError(f"{place} holds much more than its length: what it shares is too much when written out")
        known[id(value)] = length, levels
