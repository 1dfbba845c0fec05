"""Where the configuration lies: inside an installed package, or at the top of the checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """The configuration groups."""
    return _place("conf")


def sweeps_dir() -> Path:
    """The sweeps."""
    return _place("sweeps")


def _place(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
