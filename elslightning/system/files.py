"""Files that are either whole or not there: written to a temporary name, then renamed."""

import contextlib
import csv
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from elslightning.system.errors import InputError
from elslightning.system.locking import Locks

_DEPTH = 100
_SCALARS = 10_000  # some three hundred in a run of ours, and trained betas are thousands at most
# Several times as fast, where PyYAML was built with it.
_Parser: Any = getattr(getattr(yaml, "cyaml", None), "CParser", None)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; takes the name `path` when the block ends without an error.

    Raises:
        VanishedError: if a run directory that this process has taken is gone: it is not made again.
    """
    Locks.check()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        Locks.check()
        os.replace(temporary, path)
    except OSError as error:
        Locks.check()
        if error.errno is not None and error.filename in (None, str(temporary)):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # on a disk that cannot be written, it hides what went wrong
            temporary.unlink(missing_ok=True)


def clear_leftovers(directory: str | Path) -> None:
    """Removes what a process that was killed had not written to its end; for whoever has the directory to itself."""
    for path in Path(directory).rglob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """As `replacing`, for the file that `output` names on a command line, which must not be there yet.

    Raises:
        InputError: if it is, or cannot be written.
    """
    if Path(path).exists():
        raise InputError(f"output={path} exists already, and nothing is overwritten")
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"cannot write output={path}: {error.strerror or error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Writes an indented JSON file, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: if it is missing or not JSON, naming the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file with a heading; cells beyond the heading are left out, missing ones are empty.

    Raises:
        InputError: if it is missing or not CSV, naming the file.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return [
                {name: text or "" for name, text in row.items() if name is not None} for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error


def read_config(path: str | Path) -> DictConfig | ListConfig:
    """Reads a YAML file as Hydra writes it; interpolations stay as they are.

    Raises:
        InputError: if it is missing or something else, naming the file.
    """
    content = read_yaml(path)
    try:
        return OmegaConf.create({} if content is None else content)
    except Exception as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error


def read_yaml(path: str | Path) -> Any:
    """The same as plain values, which takes a fraction of the time; None if there is nothing in the file.

    Raises:
        InputError: if it is missing or something else, naming the file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        depth = scalars = 0
        for event in yaml.parse(text, _Loader):
            scalars += isinstance(event, ScalarEvent)
            if scalars > _SCALARS:  # building nodes for each of these takes seconds, again and again
                raise ValueError(f"it holds more than {_SCALARS} keys and values")
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            # Ten lists of ten references each to the one before would become ten thousand million values.
            if isinstance(event, AliasEvent):
                raise ValueError("it refers to parts of itself")
            if depth > _DEPTH:  # which takes the parser ever longer
                raise ValueError("it is nested too deeply")
        content = yaml.load(text, _config_loader())
        if content is not None and not isinstance(content, list | dict | str):
            raise ValueError(f"it is no configuration, but of type {type(content).__name__}")
        return content
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # damaged text makes the parser raise nearly anything
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error


@functools.cache
def _config_loader() -> Any:
    """OmegaConf's own, which says what is a number and refuses a key that is there twice, with the parser in C."""
    loader = get_yaml_loader()
    if _Parser is None:
        return loader

    class Loader(_Parser, loader):  # type: ignore[misc, valid-type]
        def __init__(self, stream: Any) -> None:
            _Parser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of the same keys as CSV, whole or not at all; None becomes an empty cell."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Writes tensors of torch as one compressed `.npz` file, whole or not at all."""
    content: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **content)
