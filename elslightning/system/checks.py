"""What is wrong with a value, in one line: what constructors ask of their arguments, all at once.

Every function returns a list of problems, empty if there is none; `raise_for` raises all that were found.
"""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from elslightning.system.errors import InputError


def is_whole(value: Any, minimum: int | None = None) -> bool:
    """Whether a value is a whole number, no truth value, of at least `minimum`."""
    return isinstance(value, int) and not isinstance(value, bool) and (minimum is None or value >= minimum)


def whole(key: str, value: Any, minimum: int) -> list[str]:
    """A whole number of at least `minimum`.

    >>> whole("steps", 0, 1)
    ['steps must be a whole number, at least 1, not 0']
    """
    return [] if is_whole(value, minimum) else [f"{key} must be a whole number, at least {minimum}, not {value!r}"]


def between(key: str, value: Any, minimum: int, maximum: int) -> list[str]:
    """A whole number of at least `minimum` and at most `maximum`, where a greater one would never be done with."""
    too_great = is_whole(value, minimum) and value > maximum
    return [f"{key} must be at most {maximum}, not {value}"] if too_great else whole(key, value, minimum)


def number_between(key: str, value: Any, minimum: float, maximum: float) -> list[str]:
    """A number, no truth value, greater than a minimum and less than a maximum.

    >>> number_between("share", 2, 0, 1)
    ['share must be a number between 0 and 1, not 2']
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and minimum < value < maximum
    return [] if number else [f"{key} must be a number between {minimum} and {maximum}, not {value!r}"]


def flag(key: str, value: Any) -> list[str]:
    """true or false: any other text would count as true."""
    return [] if isinstance(value, bool) else [f"{key} must be true or false, not {value!r}"]


def one_of(key: str, value: Any, choices: Collection[str]) -> list[str]:
    """One of some words."""
    known = isinstance(value, str) and value in choices
    return [] if known else [f"{key} must be one of {', '.join(choices)}, not {value!r}{did_you_mean(value, choices)}"]


def alike(word: str, known: Iterable[str]) -> str:
    """The one of some words that a mistyped one may mean; empty if none is near.

    >>> alike("resnt", ["resnet", "unet"]), alike("abacus", ["resnet", "unet"])
    ('resnet', '')
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """How an error goes on that names a mistyped word.

    >>> did_you_mean("resnt", ["resnet", "unet"])
    '; did you mean resnet?'
    """
    found = alike(word, known) if isinstance(word, str) else ""
    return f"; did you mean {found}?" if found else ""


def raise_for(*problems: str) -> None:
    """Raises InputError with all problems, each of them once, if there are any."""
    if problems:
        raise InputError(*dict.fromkeys(problems))
