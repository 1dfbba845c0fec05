"""Which file a path to a checkpoint means."""

from pathlib import Path

from elslightning.networks.diffusers_names import is_diffusers
from elslightning.runs.layout import CHECKPOINT
from elslightning.system.errors import InputError


def find_checkpoint(path: str | Path) -> Path:
    """The file that `path` names: itself, or `checkpoints/last.ckpt` of a run directory; or the folder of diffusers.

    Raises:
        InputError: if there is none.
    """
    path = Path(path)
    if path.is_dir() and not (path / CHECKPOINT).is_file() and is_diffusers(path):
        return path.resolve()
    found = path / CHECKPOINT if path.is_dir() else path
    if not found.is_file():
        raise InputError(f"checkpoint={path}: there is no file {found}")
    return found.resolve()
