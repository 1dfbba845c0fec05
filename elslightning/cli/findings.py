"""Findings: what is wrong with a configuration, gathered while its sections are built."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.utils import get_object

from elslightning.runs.targets import build
from elslightning.system.checks import did_you_mean
from elslightning.system.errors import InputError


class Findings:
    """Problems, each of them once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def add(self, *problems: str) -> None:
        """Takes up what was not known yet."""
        self.problems += [problem for problem in problems if problem not in self.problems]

    @contextmanager
    def of(self, place: str = "") -> Iterator[None]:
        """Takes up what a block refuses, which ends there; `place` goes before it."""
        try:
            yield
        except InputError as error:
            self.add(*(f"{place}{problem}" for problem in error.problems))

    def build(self, place: str, section: dict[str, Any]) -> Any:
        """The object of a section, or None; keys that it does not take are named, and the others looked at all the
        same."""
        known = _parameters(section)
        unknown = [] if known is None else [key for key in section if not key.startswith("_") and key not in known]
        for key in unknown:
            self.add(
                f"there is no key {place}.{key}: choose from {', '.join(known or ())}{did_you_mean(key, known or ())}"
            )
        with self.of():
            return build({key: value for key, value in section.items() if key not in unknown})
        return None


def _parameters(section: dict[str, Any]) -> list[str] | None:
    """The keys that the class of a section takes; None if that cannot be told."""
    try:
        parameters = inspect.signature(get_object(section["_target_"])).parameters.values()
    except Exception:  # building it says what is wrong
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY]


@contextmanager
def as_input(place: str) -> Iterator[None]:
    """Raises InputError, naming the place, whatever is raised."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # what torch says of arguments comes as anything
        raise InputError(f"{place}: {' '.join(str(error).split())}") from error
