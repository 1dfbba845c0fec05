"""run.json: what made a run, so that it can be made again."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import elslightning
from elslightning.data.module import ImageDataModule
from elslightning.runs.belonging import read_sealed, sealed
from elslightning.runs.layout import RECORD
from elslightning.system.files import write_json

PACKAGES = ("torch", "lightning", "numpy", "numba")


def describe(
    *,
    seed: int,
    data: ImageDataModule,
    device: torch.device,
    processes: int = 1,
    overrides: Sequence[str] = (),
    wandb: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """What goes into run.json.

    Args:
        seed: of everything random.
        data: the data, loaded; its `checksum` is the same on every machine that has the same images.
        device: of this process.
        processes: how many there are.
        overrides: what the command line sets; for the job of a multirun, what is set in this job.
        wandb: `id`, `name` and `group` of W&B's run, if there is one.
    """
    where = {"device": str(device), "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None}
    return {
        "started": _now(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "overrides": list(overrides),
        "seed": seed,
        "versions": versions(),
        "git": git(),
        "data_sha256": data.checksum(),
        "images": _counts(data),
        **where,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "wandb": None if wandb is None else dict(wandb),
    }


def _counts(data: ImageDataModule) -> dict[str, int | None]:
    """How many images there are for training and validation, and of how many classes; None without labels."""
    labels = data.train_labels
    classes = None if labels is None else len(labels.unique())
    return {"train": len(data.train_images), "val": len(data.val_images), "classes": classes}


def versions() -> dict[str, str | None]:
    """Of elslightning, Python, and the packages that numbers depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"elslightning": elslightning.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git() -> dict[str, Any] | None:
    """The commit of the checkout that the package is run from, or else that of the working directory, and whether
    tracked files differ from it; None if neither is a checkout."""
    package = Path(elslightning.__file__).resolve().parent
    # An installed package may lie inside a checkout that it is no part of.
    part = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    for of, folder in (("package", package if part else None), ("working directory", Path.cwd())):
        if folder is not None and (commit := _git(folder, "rev-parse", "HEAD")):
            changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return {"of": of, "commit": commit, "dirty": bool(changes)}
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails, takes too long or is not there."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_record(directory: Path, content: Mapping[str, Any]) -> None:
    """Writes run.json, whole or not at all, with a checksum of its own."""
    write_json(directory / RECORD, sealed(content))


def read_record(directory: Path) -> dict[str, Any]:
    """What `write_record` wrote; nothing if it did not.

    Raises:
        InputError: if the file is damaged or was edited.
    """
    return read_sealed(directory / RECORD)


def data_of(directory: Path) -> str | None:
    """The checksum of the images that the run in a directory had last, if it is known."""
    content = read_record(directory)
    resumed = content.get("resumed")
    parts = [content, *(resumed if isinstance(resumed, list) else [])]
    known = [part["data_sha256"] for part in parts if isinstance(part, dict) and part.get("data_sha256")]
    return str(known[-1]) if known else None


def other_data(record: Mapping[str, Any]) -> str | None:
    """What is doubtful about a run whose images are not those that its network was trained on, or that it began with.

    Args:
        record: the content of run.json.
    """
    wanted, resumed = record.get("trained_on_sha256") or record.get("data_sha256"), record.get("resumed")
    parts = [record, *(resumed if isinstance(resumed, list) else [])]
    found = [part["data_sha256"] for part in parts if isinstance(part, dict) and part.get("data_sha256")]
    other = next((one for one in found if one != wanted), None)
    if other is None:
        return None
    return (
        f"Other data: the network was trained on images with the checksum {str(wanted)[:12]}, but these have "
        f"{str(other)[:12]}. The theory is about the images that a network was trained on."
    )


def wandb_identity(directory: Path) -> dict[str, Any] | None:
    """`id`, `name` and `group` of the W&B run that a run directory had last, if any."""
    content = read_record(directory)
    known = [part["wandb"] for part in (content, *content.get("resumed", [])) if part.get("wandb")]
    return known[-1] if known else None


def finish(directory: Path) -> None:
    """Adds to run.json when the run was finished."""
    write_record(directory, read_record(directory) | {"finished": _now()})


def is_finished(directory: Path) -> bool:
    """Whether a run says that it is finished, and has not been resumed since."""
    return read_record(directory).get("finished") is not None
