"""What an offline W&B run wrote down, read as `wandb sync` reads it: LevelDB's log format around protobuf records."""

import functools
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import wandb
from wandb import util
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = struct.Struct("<4sHB")


def looked_once(patch: pytest.MonkeyPatch) -> None:
    """Has W&B look once for what is installed, and not for settings of launches, for which it imports a lot."""
    found = util.working_set
    packages = functools.cache(lambda: list(found()))
    patch.setattr(util, "working_set", packages)
    patch.setattr(wandb.Run, "_detect_and_apply_job_inputs", lambda self: None)


class Offline(NamedTuple):
    """An offline run: its directory, who it is, and what it has.

    `history` has a dictionary per logged step; `artifacts` the contents of the files by name of the artifact.
    """

    directory: Path
    id: str
    name: str
    group: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    artifacts: dict[str, dict[str, bytes]]
    exit_code: int

    def values(self, key: str) -> list[Any]:
        return [row[key] for row in self.history if key in row]

    def media(self, key: str) -> bytes:
        """The content of the last file logged as an image or a table."""
        last = self.values(key)[-1]
        name = last["filenames"][-1] if "filenames" in last else last["path"]
        return (self.directory / "files" / name).read_bytes()


def _frames(content: bytes) -> Iterator[bytes]:
    assert HEADER.unpack_from(content) == (b":W&B", 0xBEE1, 0)
    position, parts = HEADER.size, b""
    while position < len(content):
        left = BLOCK - position % BLOCK
        if left < 7:  # no room for another header: padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def _update(content: dict[str, Any], items: Iterable[Any]) -> None:
    """Takes in values by their keys, or by the path of keys to them."""
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(item.value_json)


def read(run: Path) -> Offline:
    """An offline run by its directory, `offline-run-...`."""
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    artifacts: dict[str, dict[str, bytes]] = {}
    who, exit_code = None, -1
    (file,) = run.glob("*.wandb")
    for frame in _frames(file.read_bytes()):
        record = Record.FromString(frame)
        match record.WhichOneof("record_type"):
            case "run":
                who = record.run
                _update(config, record.run.config.update)
            case "config":
                _update(config, record.config.update)
            case "history":
                history.append({})
                _update(history[-1], record.history.item)
            case "artifact":
                contents = record.artifact.manifest.contents
                files = {entry.path: Path(entry.local_path).read_bytes() for entry in contents if entry.local_path}
                artifacts[record.artifact.name] = files
            case "exit":
                exit_code = record.exit.exit_code
    assert who is not None
    return Offline(run, who.run_id, who.display_name, who.run_group, config, history, artifacts, exit_code)


def runs(directory: Path) -> list[Offline]:
    """The offline runs below the directory of a run of ours, the oldest first."""
    return [read(path) for path in sorted(directory.glob("wandb/offline-run-*"))]
