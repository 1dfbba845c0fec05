"""What there is to work with: whether this installation, this machine and these folders will carry a run."""

import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from packaging.requirements import Requirement

from elslightning import __version__
from elslightning.cli.estimating import Estimate, of_training
from elslightning.cli.sizing import EXPERIMENT, suggested
from elslightning.data.decoding import each, raise_for_first, read_image
from elslightning.data.finding import Found, find
from elslightning.data.folder import describe, divide, doubtful
from elslightning.data.request import AbsentError, Request, Split
from elslightning.data.sources import SOURCES
from elslightning.data.survey import survey
from elslightning.diffusion.schedule import add_noise
from elslightning.machines.registry import ENTRIES
from elslightning.runs.paths import for_grammar
from elslightning.system.errors import InputError

OUTPUTS = "outputs"
"""Where runs write to, below the working directory."""
LEAST_MEMORY, LEAST_DISK = 2**30, 2**30
"""Free bytes below which a small run may fail."""
DIFFERENCE = 1e-3
"""What single and double precision may differ by."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: it was.
        found: what there is.
        remedy: what to do, if it would keep a run from working; empty if it would not.
    """

    what: str
    found: str
    remedy: str = ""


def examine(folders: Sequence[str] = ()) -> list[Finding]:
    """Looks at everything; contacts nothing, and leaves nothing behind.

    Args:
        folders: of data, to say which data sets are in them.
    """
    parts: list[Callable[[], Iterator[Finding]]] = [_packages, _devices, _wandb, _room, _self_test]
    parts += [partial(_folder, name) for name in folders]
    return [finding for part in parts for finding in part()]


def report(findings: Sequence[Finding]) -> str:
    """A line for each, those that would keep a run from working with what to do."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for what, found, remedy in findings:
        lines.append(f"{'FAIL' if remedy else 'ok':<5}{what:<{width}}  {found}" + (f": {remedy}" if remedy else ""))
    failed = sum(bool(finding.remedy) for finding in findings)
    return "\n".join(
        [*lines, "", f"{failed} of {len(lines)} would keep a run from working" if failed else "all is well"]
    )


def _packages() -> Iterator[Finding]:
    """The versions of what the package's metadata asks for."""
    yield Finding("elslightning", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    try:
        wanted = [Requirement(line) for line in requires("elslightning") or []]
    except PackageNotFoundError:
        yield Finding("packages", "elslightning is not installed", "install it with pip, or with make test")
        return
    for need in [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]:
        try:
            found = version(need.name)
        except PackageNotFoundError:
            yield Finding(need.name, "is missing", f"pip install '{need}'")
            continue
        fits = need.specifier.contains(found, prereleases=True)
        yield Finding(need.name, f"{found} ({need.specifier})", "" if fits else f"pip install '{need}'")


def _devices() -> Iterator[Finding]:
    yield Finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none: trainer=cpu, which is the default")
        return
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        try:
            torch.ones(1, device=name).add_(1)
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            remedy = f"use another device, or CUDA_VISIBLE_DEVICES= for none: {str(error).splitlines()[0]}"
            yield Finding(name, "cannot be used", remedy)
        else:
            yield Finding(name, f"{torch.cuda.get_device_name(index)}, {_size(free)} of {_size(total)} free")


def _wandb() -> Iterator[Finding]:
    """What W&B would do, from the environment and the files that hold its keys."""
    mode = os.environ.get("WANDB_MODE")
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        account = "WANDB_API_KEY" in os.environ or "api.wandb.ai" in netrc.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        account = False
    said = "an account is configured" if account else "no account is configured: offline works without"
    remedy = "set WANDB_API_KEY, or WANDB_MODE=offline" if mode == "online" and not account else ""
    yield Finding("W&B", f"WANDB_MODE {'is not set' if mode is None else f'is {mode}'}, {said}", remedy)


def _room() -> Iterator[Finding]:
    """Where runs write, and what is free."""
    outputs = Path(OUTPUTS).absolute()
    place = next(folder for folder in (outputs, *outputs.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Finding(OUTPUTS, f"{outputs} can be written")
    except OSError as error:
        remedy = "change to another folder, or give hydra.run.dir=FOLDER"
        yield Finding(OUTPUTS, f"{outputs} cannot be written ({error.strerror})", remedy)
    disk, memory = shutil.disk_usage(place).free, psutil.virtual_memory().available
    yield Finding("disk", f"{_size(disk)} free", "make room" if disk < LEAST_DISK else "")
    yield Finding("memory", f"{_size(memory)} free", "end other programs" if memory < LEAST_MEMORY else "")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def _self_test() -> Iterator[Finding]:
    """Every machine on a few small images: in single precision, where a CPU takes compiled loops, and in double."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 8, 8, generator=generator) * 2 - 1
    alpha_bar = torch.tensor([0.1, 0.9], dtype=torch.float64)
    x_t = add_noise(images[:2], torch.randn(2, 1, 8, 8, generator=generator), alpha_bar)
    remedy = "install torch and numba anew"
    for entry in ENTRIES:
        machine: type[Any] = entry.machine
        options = entry.example(8, 8)
        try:
            found = machine(images, **options)(x_t, alpha_bar)
            expected = machine(images.double(), **options)(x_t.double(), alpha_bar)
        except Exception as error:  # whatever is broken
            yield Finding(machine.__name__, f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)
            continue
        difference = float((found - expected).abs().max())
        text = f"single and double precision differ by {difference:.0e}"
        yield Finding(machine.__name__, text, "" if difference < DIFFERENCE else remedy)


def _folder(name: str) -> Iterator[Finding]:
    """The data sets that a folder holds, and what to do with them."""
    root = Path(os.path.expanduser(name))
    if not root.is_dir():
        yield Finding(name, "is not a folder", "give the one that data.root is to name")
        return
    known: dict[str, list[str]] = {}
    sets: list[tuple[str, Split, Split]] = []
    for dataset, channels in (("mnist", 1), ("fashion_mnist", 1), ("cifar10", 3)):
        try:
            train, val = SOURCES[dataset](Request(dataset, root, channels))
        except AbsentError:
            continue
        except InputError as error:
            yield Finding(name, f"{error}", "copy or download it anew")
            return
        shape = " x ".join(str(side) for side in train.images.shape[1:])
        known.setdefault(f"{len(train.images)} + {len(val.images)} images of {shape}", []).append(f"data={dataset}")
        sets.append((dataset, train, val))
    if known:  # the files of MNIST and Fashion-MNIST have the same names
        yield Finding(name, ", ".join(f"{' or '.join(names)}: {what}" for what, names in known.items()))
        words = [[f"experiment={dataset}_small", f"data.root={root}"] for dataset, _, _ in sets]
        _, train, val = sets[0]
        expected = of_training(words[0], train.images.shape[1:], len(train.images), len(val.images), 10)
        yield _recommended(name, words, expected)
        return
    try:
        images = find(root)
        items, held_out = divide(images.images, f"data.root={root}")
    except InputError as error:
        yield Finding(name, "holds no data set", f"{error}")
        return
    looked_at = _images(root, images, describe(images, items, held_out, "data=folder"))
    yield looked_at
    if not looked_at.remedy:
        yield from _training(name, root)


def _training(name: str, root: Path) -> Iterator[Finding]:
    """What a training on a folder of images will be like."""
    place = f"data.root={root}"
    words = [f"experiment={EXPERIMENT}", place]
    try:
        found = survey(root, place)
        added = suggested(for_grammar(words), {}, found, place)
        typed = [*for_grammar(words), *(f"{key}={value}" for key, value in added.items())]
        side, classes = int(str(added["data.image_size"])), len(found.classes)
        expected = of_training(typed, (found.channels, side, side), found.train, found.val, classes)
    except InputError:  # it has been said above
        return
    yield _recommended(name, [words], expected)


def _recommended(name: str, commands: Sequence[Sequence[str]], expected: Estimate | None) -> Finding:
    """A command for each, and what is expected of it."""
    typed = " or ".join(shlex.join(["elslightning", "train", *words]) for words in commands)
    return Finding(name, f"{typed}: {expected}" if expected else typed)


def _images(root: Path, images: Found, about: str) -> Finding:
    """Whether every file of a folder of images decodes, and what is doubtful about it."""

    def one_colour(index: int) -> bool:
        pixels = read_image(root / images.images[index], channels=3, side=None)
        return bool((pixels.max(axis=(1, 2)) == pixels.min(axis=(1, 2))).all())

    read = list(each(one_colour, len(images.images)))
    flat = [path for path, found in zip(images.images, read, strict=True) if found is True]
    doubts = list(doubtful(images, f"{root}"))
    if flat:
        doubts.append(f"{len(flat)} of {len(read)} images are of one colour, first {root / flat[0]}")
    found = "; ".join([about, *(f"warning: {doubt}" for doubt in doubts)])
    try:
        raise_for_first([problem for problem in read if isinstance(problem, InputError)])
    except InputError as error:
        return Finding(str(root), found, f"mend or take away what cannot be read: {'; '.join(error.problems)}")
    return Finding(str(root), found)
