"""Paths in configurations: which keys are paths, and what they become before Hydra and a run see them.

A path on a command line is taken as it is typed: spaces, commas, brackets, `=` and letters of any script are part of
it, and `~` is the home folder. Hydra's own grammar counts only where a value begins with a quotation mark, holds an
interpolation, or, with --multirun, is a function such as `choice('a','b')`.
"""

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.system.errors import InputError

READ = (
    *("data.root", "checkpoint", "scales", "resume", "network.path", "network.weights"),
    *("machines.*.path", "machines.*.crops", "machines.*.windows"),
)
"""The keys that name what is read; kept by their full paths, for what begins here may go on elsewhere."""
SHARED = ("machines.*.index",)
"""The keys that name what is made where it is missing, and read where it is not; kept by their full paths too."""
WRITTEN = ("hydra.run.dir", "hydra.sweep.dir")
"""The keys that name where runs go."""

_PLAIN = re.compile(r"[A-Za-z0-9_./+@%-]*/[A-Za-z0-9_./+@%-]*")
_FUNCTION = re.compile(r"(choice|glob|range|interval|sort|shuffle|tag)\(.*\)", re.DOTALL)
_NUMBERS = re.compile(r"\d+(,\d+)*")
_NOTHING = ("", "null")


def is_path(key: str, keys: Iterable[str] = (*READ, *SHARED, *WRITTEN)) -> bool:
    """Whether a key of a configuration is one of these.

    >>> is_path("machines.checkpoint.path"), is_path("data.train_size")
    (True, False)
    """
    return any(fnmatchcase(key, pattern) for pattern in keys)


def full(path: str | Path, base: str | Path | None = None) -> str:
    """The full path of one that is relative to `base`, by default to the working directory; `~` is the home folder."""
    return str(Path(base or Path.cwd()) / os.path.expanduser(path))


def for_grammar(words: Iterable[str], *, several: bool = False, base: str | Path | None = None) -> list[str]:
    """The words of a command line, so that Hydra's grammar reads every path in them as it is typed.

    Args:
        words: `key=value` and flags.
        several: with --multirun, where functions and quoted values after commas name several paths.
        base: what relative paths are relative to; by default, the working directory.

    Raises:
        InputError: for several paths that are not quoted.

    >>> for_grammar(["data.root=/pics/My Photos (1)", "seed=1"])
    ["data.root='/pics/My Photos (1)'", 'seed=1']
    """
    return [_word(word, several, base) for word in words]


def _word(word: str, several: bool, base: str | Path | None) -> str:
    key, separator, value = word.partition("=")
    if not separator or not is_path(key.lstrip("+")) or key.startswith("-"):
        return word
    name = key.lstrip("+")
    if value in _NOTHING or "${" in value or (name == "scales" and _NUMBERS.fullmatch(value)):
        return word
    paths = [value]
    if value[0] in "'\"" or (several and _FUNCTION.fullmatch(value)):
        paths = _parsed(word, name, several)
        if not paths:
            return word
    elif several and name not in WRITTEN and "," in value and not os.path.exists(os.path.expanduser(value)):
        raise InputError(f"{word}: a comma is part of a path; several paths are {name}=choice('A','B')")
    taken = [os.path.expanduser(path) if is_path(name, WRITTEN) else full(path, base) for path in paths]
    # Unquoted where that is the same: words are shown, and name runs.
    return f"{key}={','.join(path if _PLAIN.fullmatch(path) else _quoted(path) for path in taken)}"


def _parsed(word: str, name: str, several: bool) -> list[str]:
    """The paths of a value that Hydra's grammar is asked for; none where it has something else to say."""
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except HydraException:
        return [word.partition("=")[2]]  # the quotation mark is a part of it
    values: list[Any] = [override.value()]
    if override.is_sweep_override():
        if not several or not override.is_choice_sweep():
            return []
        choices = override.sweep_string_iterator()
        values = [OverridesParser.create().parse_override(f"{name}={choice}").value() for choice in choices]
    return values if all(isinstance(value, str) for value in values) else []


def _quoted(path: str) -> str:
    return QuotedString(path, Quote.single).with_quotes()


def word_of(key: str, path: str | Path) -> str:
    """The `key=value` that sets a path, as Hydra's grammar reads it."""
    return f"{key}={_quoted(str(path))}"


def path_in(word: str) -> str:
    """The path that a `key=value` sets, of those that `for_grammar` returns; empty if it sets none.

    Raises:
        InputError: for a value that is no path.
    """
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException as error:
        raise InputError(f"{word} names no path: {' '.join(str(error).split())}") from error
    return value if isinstance(value, str) else ""


def make_full(config: DictConfig | dict[str, Any], base: str | Path | None = None) -> None:
    """Gives every path of what is read in a configuration, or in plain values, in full; see `full`."""
    places = {pattern for pattern in READ if "*" not in pattern}
    machines = [pattern for pattern in (*READ, *SHARED) if "*" in pattern]
    places |= {pattern.replace("*", str(name)) for pattern in machines for name in config.get("machines") or {}}
    for key in places:
        if isinstance(config, dict):
            _make_one_full(config, key, base)
            continue
        try:
            value = OmegaConf.select(config, key, default=None)
        except OmegaConfBaseException:  # whoever needs it says what is wrong
            continue
        if isinstance(value, str) and value not in _NOTHING:
            OmegaConf.update(config, key, full(value, base))


def _make_one_full(config: dict[str, Any], key: str, base: str | Path | None) -> None:
    *parents, name = key.split(".")
    section: Any = config
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    value = section.get(name) if isinstance(section, dict) else None
    if isinstance(value, str) and value not in _NOTHING:
        section[name] = full(value, base)
