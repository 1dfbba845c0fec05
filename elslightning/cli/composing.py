"""Where the configuration lies: inside an installed package, or at the top of the checkout."""

import codecs
import itertools
from collections.abc import Sequence
from pathlib import Path

from elslightning.system.errors import InputError

_PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """The configuration groups."""
    return _place("conf")


def sweeps_dir() -> Path:
    """The sweeps."""
    return _place("sweeps")


def check_own(words: Sequence[str]) -> None:
    """Looks at the configuration files that `--config-dir` names: a byte-order mark at their beginning would hide from
    Hydra a first line that says where their keys belong, and they would go elsewhere without a word.

    Raises:
        InputError: naming every file that has one.
    """
    flags = ("--config-dir", "-cd", "--config-path", "-cp")
    folders = [word.partition("=")[2] for word in words if word.startswith(tuple(f"{flag}=" for flag in flags))]
    folders += [after for word, after in itertools.pairwise(words) if word in flags]
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.yaml")) if path.is_file()]
    marked = [path for path in files if path.read_bytes()[:3] == codecs.BOM_UTF8]
    if marked:
        raise InputError(*(f"{path} begins with a byte-order mark: save it as UTF-8 without one" for path in marked))


def _place(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
