"""Which files belong together: a summary holds the checksums of what was written with it."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from elslightning.runs.layout import RECORD, SUMMARY
from elslightning.system.errors import InputError
from elslightning.system.files import read_json

FILES = "files"
"""The key with checksums by name, in summary.json, and in run.json of a run without a summary."""


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """The checksums of files by their names."""
    return {path.name: checksum(path) for path in paths}


def check_belonging(directory: Path, content: Mapping[str, Any], holder: str, only: Collection[str] = ()) -> None:
    """Holds the files of a run against the checksums in one of them.

    What has been removed since is no matter, and neither is a file of an earlier version, which holds none.

    Args:
        directory: of the run.
        content: of the file that holds them.
        holder: its name.
        only: names to look at; all without any.

    Raises:
        InputError: naming the first file that was not written with it.
    """
    known = content.get(FILES, {})
    if not isinstance(known, dict):
        raise InputError(f"{directory / holder} is damaged: {FILES} are no checksums")
    for name, wanted in known.items():
        path = directory / Path(str(name)).name
        if (not only or name in only) and path.is_file() and checksum(path) != wanted:
            raise InputError(
                f"{path} was not written with {holder}: it is damaged, changed, or of a run that did not end"
            )


def check_one(path: Path) -> None:
    """Holds one file of a run against the checksum beside it, if there is one.

    Raises:
        InputError: as `check_belonging`, and for a file with checksums that cannot be read.
    """
    for holder in (SUMMARY, RECORD):
        content = read_json(path.parent / holder) if (path.parent / holder).is_file() else {}
        check_belonging(path.parent, content if isinstance(content, dict) else {}, holder, only=(path.name,))
