"""What a pickle holds that is more than plain data, and is not built."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

Call = Callable[..., Any]
"""A function of ours in the place of one that a pickle calls: its arguments are the file's, of any type."""


@dataclass(frozen=True)
class Name:
    """Something that a pickle names, `module.name`; it is not looked up."""

    text: str


@dataclass(eq=False)
class Record:
    """An object of a class that is not looked up: the name of the class, and the attributes it was given."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Made:
    """What a call would have made: the name of what is called, its arguments, and the state it was given; no more."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def made(names: Collection[str]) -> dict[str, Call]:
    """For `calls` of `read_pickle`: what these names make becomes `Made`."""

    def call(name: str) -> Call:
        return lambda *arguments: Made(name, arguments)

    return {name: call(name) for name in names}


def parts_of(value: Any) -> list[Any]:
    """What is directly within a value."""
    match value:
        case list() | tuple():
            return list(value)
        case dict():
            return [*value, *value.values()]
        case Record():
            return [value.state]
        case Made():
            return [*value.arguments, value.state]
    return []
