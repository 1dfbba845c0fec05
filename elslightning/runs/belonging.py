"""Which files belong together, and whether they are what was written.

summary.json, run.json and job.json each hold a checksum of their own content. A summary holds those of the files that
were written with it, run.json those of the configuration, and of the results of a run without a summary.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from elslightning.runs.layout import CONFIG, HYDRA, OVERRIDES, RECORD, SUMMARY
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, read_yaml

FILES = "files"
"""The key with checksums by name, in summary.json and in run.json."""
CHECKSUM = "checksum"
"""The key with the checksum of all else in the same file."""
_MARK = "sha256:"
# Of these the values count, and no comment or line break: people look into them.
_CONFIGURATION = (CONFIG, OVERRIDES)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """The checksums of files by their names."""
    return {path.name: checksum(path) for path in paths}


def configuration_checksums(directory: Path) -> dict[str, str]:
    """The checksums of what Hydra wrote of a run, by their names in its directory, as far as it is there."""
    names = [name for name in (*_CONFIGURATION, HYDRA) if (directory / name).is_file()]
    return {name: _checksum(directory, name) for name in names}


def _checksum(directory: Path, name: str) -> str:
    if name not in _CONFIGURATION:
        return checksum(directory / name)
    content = read_yaml(directory / name)
    try:
        return _of_content({} if content is None else content)
    except TypeError as error:  # a key of a kind that no configuration has
        raise InputError(f"cannot read {directory / name}: {error}") from error


def _of_content(content: Any) -> str:
    """SHA-256 of plain values, the same before they are written and after they are read."""
    same = json.loads(json.dumps(content, default=str))  # keys are text then
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file, with a checksum of all else in it."""
    bare = {key: value for key, value in content.items() if key != CHECKSUM}
    return bare | {CHECKSUM: _MARK + _of_content(bare)}


def check_seal(path: Path, content: Mapping[str, Any]) -> None:
    """Holds what was read of a JSON file against the checksum in it; a file of an earlier version has none.

    Raises:
        InputError: naming the file, if it is not what was written.
    """
    # By its value, a checksum whose key is damaged is known, too.
    marked = any(isinstance(value, str) and value.startswith(_MARK) for value in content.values())
    if (marked or CHECKSUM in content) and content.get(CHECKSUM) != sealed(content)[CHECKSUM]:
        raise InputError(
            f"{path} is damaged or was edited: its checksum is another; put it back, or, if it was edited on purpose, "
            f'take "{CHECKSUM}" out of it'
        )


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file with a checksum of its own; nothing if it is not there, or holds something else.

    Raises:
        InputError: as `check_seal`, and if it cannot be read.
    """
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        return {}
    check_seal(path, content)
    return content


def check_belonging(directory: Path, content: Mapping[str, Any], holder: str, only: Collection[str] = ()) -> None:
    """Holds the files of a run, and what holds their checksums, against these.

    What has been removed since is no matter, and neither is a file of an earlier version, which holds none.

    Args:
        directory: of the run.
        content: of the file that holds them.
        holder: its name.
        only: names to look at; all without any.

    Raises:
        InputError: naming the first file that was not written with it.
    """
    check_seal(directory / holder, content)
    known = content.get(FILES, {})
    if not isinstance(known, dict):
        raise InputError(f"{directory / holder} is damaged: {FILES} are no checksums")
    for name, wanted in known.items():
        name = name if name in (*_CONFIGURATION, HYDRA) else Path(str(name)).name
        path = directory / name
        if (not only or name in only) and path.is_file() and _checksum(directory, name) != wanted:
            how = (
                f'put it back, or, if it was edited on purpose, take "{name}" and "{CHECKSUM}" out of {holder}'
                if name in _CONFIGURATION
                else "it is damaged, changed, or of a run that did not end"
            )
            raise InputError(f"{path} was not written with {holder}: {how}")


def check_files(directory: Path, *names: str) -> None:
    """Holds single files of a run against the checksums beside them, if there are any.

    Raises:
        InputError: as `check_belonging`, and for a file with checksums that cannot be read.
    """
    for holder in (SUMMARY, RECORD):
        check_belonging(directory, read_sealed(directory / holder), holder, only=names)
