"""What an offline W&B run wrote down, read as `wandb sync` reads it: LevelDB's log format around protobuf records."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = struct.Struct("<4sHB")


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
                updates = record.run.config.update
                config |= {update.key: json.loads(update.value_json) for update in updates}
            case "config":
                config |= {update.key: json.loads(update.value_json) for update in record.config.update}
            case "history":
                items = record.history.item
                history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            case "artifact":
                contents = record.artifact.manifest.contents
                files = {entry.path: Path(entry.local_path).read_bytes() for entry in contents if entry.local_path}
                artifacts[record.artifact.name] = files
            case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                artifact = record.request.log_artifact.artifact
                contents = artifact.manifest.contents
                files = {entry.path: Path(entry.local_path).read_bytes() for entry in contents if entry.local_path}
                artifacts[artifact.name] = files
            case "exit":
                exit_code = record.exit.exit_code
    assert who is not None
    return Offline(run, who.run_id, who.display_name, who.run_group, config, history, artifacts, exit_code)


def runs(directory: Path) -> list[Offline]:
    """The offline runs below the directory of a run of ours, the oldest first."""
    return [read(path) for path in sorted(directory.glob("wandb/offline-run-*"))]
