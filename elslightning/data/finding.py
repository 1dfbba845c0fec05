"""Image files below a folder: which there are, and what is left out."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from elslightning.data.decoding import SUFFIXES
from elslightning.system.errors import InputError

TRAINING = ("train", "training")
"""What folders of training sets are called, in small letters."""
VALIDATION = ("val", "valid", "validation", "test", "testing")
"""What folders of validation sets are called; the first of several is taken."""
UNREAD = (
    *(".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".svg", ".psd", ".tga", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".npy", ".npz", ".exr", ".dng", ".cr2", ".nef", ".arw"),
)
"""Images that are not read."""
# What servers and archives leave beside images: thumbnails, and what was thrown away.
_BESIDE = ("@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found")


class Found(NamedTuple):
    """What lies below a folder.

    Attributes:
        images: that are read, relative to the folder, sorted by path.
        unread: images of other formats, alike.
        left: how many files, or folders, are left out, by what they are.
    """

    images: list[Path]
    unread: list[Path]
    left: Counter[str]


def find(root: Path) -> Found:
    """Images at any depth below `root`, by suffix.

    Hidden files and folders are left out, and what servers and archives put beside images (`@eaDir`, `__MACOSX`).
    Links to files are read. Links to folders are followed where classes and sets may be: in `root`, and in folders
    named like sets; not where they lead around to a folder that they are in.

    Raises:
        InputError: if there is no image, or a folder cannot be read.
    """
    found = Found([], [], Counter())
    _walk(root, Path(), (os.path.realpath(root),), found)
    if not found.images:
        left = f"; left out: {told(found.left)}" if found.left else ""
        raise InputError(f"data.root={root} holds no {', '.join(SUFFIXES)} file{left}")
    for paths in found[:2]:
        paths.sort(key=lambda path: path.parts)
    return found


def _walk(root: Path, place: Path, around: tuple[str, ...], found: Found) -> None:
    """Adds what lies below a place in `root`; `around` are the folders that it is in, without links."""
    try:
        with os.scandir(root / place) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    for entry in inside:
        path, suffix = place / entry.name, Path(entry.name).suffix.lower()
        if entry.is_dir():
            if entry.name.lower() in _BESIDE or entry.name.startswith("."):
                found.left[f"folder {entry.name}/"] += 1
                continue
            target = os.path.realpath(entry.path)
            if entry.is_symlink() and (not _may_be_link(place) or _leads_around(target, around)):
                found.left[f"link {path.as_posix()}/"] += 1
                continue
            _walk(root, path, (*around, target), found)
        elif entry.name.startswith("."):
            found.left["hidden"] += suffix in SUFFIXES
        elif suffix in SUFFIXES:
            found.images.append(path)
        else:
            found.left[suffix or "without a suffix"] += 1
            if suffix in UNREAD:
                found.unread.append(path)


def _may_be_link(place: Path) -> bool:
    """Whether folders at a place may be classes or sets."""
    return not place.parts or (len(place.parts) == 1 and place.name.lower() in (*TRAINING, *VALIDATION))


def _leads_around(target: str, around: tuple[str, ...]) -> bool:
    """Whether a folder holds, or is, one of others."""
    return any(os.path.commonpath([target, folder]) == target for folder in around)


def told(left: Counter[str], most: int = 8) -> str:
    """What is left out, in words, the most frequent first.

    >>> told(Counter({".gif": 12, "link loop/": 1}))
    '12 .gif, 1 link loop/'
    """
    parts = [f"{count} {what}" for what, count in left.most_common() if count]
    return ", ".join([*parts[:most], *([f"{len(parts) - most} kinds more"] if len(parts) > most else [])])
