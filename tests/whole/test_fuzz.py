"""Damaged and hostile files: whatever a file holds, reading it gives what is documented or one line that names it.

Mutations of real files, small and derandomized; what once went wrong stands as an example or as a test of its own.
"""

import functools
import gzip
import io
import json
import os
import pickle
import resource
import signal
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import papers
import pytest
import torch
from files import batch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jobs import job
from jobs import summary as some_summary
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save
from tiny import network, snapshot

from elslightning.data.cifar import ARCHIVE, FOLDER, TRAIN, cifar10, read_batch
from elslightning.data.idx import read_idx
from elslightning.data.request import Request
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.scales import ScaleTable, load_scales
from elslightning.measurement.gradients import GradientField
from elslightning.networks.official import load_official
from elslightning.report import figures
from elslightning.report import sweep as sweep_report
from elslightning.report.page.markdown import document
from elslightning.report.page.sections import lead, sections
from elslightning.report.sweep import report
from elslightning.runs.checkpoints import CHECKPOINT_FORMAT, open_network, read_checkpoint
from elslightning.runs.contents import gradient_arrays
from elslightning.runs.experiment import open_run
from elslightning.runs.jobs import FAILED, FINISHED, UNFINISHED, read_job
from elslightning.runs.run import Run, read_run
from elslightning.runs.targets import build
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, write_arrays, write_csv, write_json
from elslightning.system.tensorfiles import read_tensors
from elslightning.system.torchfiles import TorchFile, read_plain

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]

MORE = 2**30
"""Bytes of address space that reading a file of a few thousand may take."""
SECONDS = 20
"""Processor seconds that all examples of a test may take: a machine that has other work to do is not late."""


class Late(BaseException):
    """It takes too long; no error that a parser could take for one of its own."""


def fuzz(examples: int = 60) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Ends what hangs, and makes an error of memory that a small file has no right to."""

    def late(*arguments: Any) -> None:
        raise Late

    before, limits = signal.signal(signal.SIGPROF, late), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    resource.setrlimit(resource.RLIMIT_AS, limits)


def damage(length: int = 4096) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Flips, truncations, insertions, deletions and splices, at positions up to `length`, from either end."""
    change = st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "delete", "splice"]),
        st.integers(-length, length),
        st.integers(0, length),
        st.binary(min_size=1, max_size=8),
    )
    return st.lists(change, min_size=1, max_size=4).map(done)


def done(changes: list[tuple[str, int, int, bytes]]) -> Callable[[bytes], bytes]:
    """What makes these changes of a file's content."""

    def apply(content: bytes) -> bytes:
        data = bytearray(content)
        for kind, position, count, filling in changes:
            at = position % (len(data) + 1)
            match kind:
                case "flip" if at < len(data):
                    data[at] ^= 1 << count % 8
                case "set":
                    data[at : at + len(filling)] = filling
                case "cut":
                    del data[at:]
                case "insert":
                    data[at:at] = filling
                case "delete":
                    del data[at : at + count % 16]
                case "splice":
                    data[at:at] = data[count % (len(data) + 1) :][:64]
        return bytes(data)

    return apply


scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 3, 10**30, -(10**400), 2**62 + 1, 1e300, float("nan"), float("inf"), -0.0, 0.5])
    | st.sampled_from(["", "a\nb", "\x1b[2J", "${x}", "${oc.env:HOME}", "???", "1e400", "bbels", "_target_"])
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
"""What UTF-8 can hold, which Hypothesis would find out by trying."""
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=3),
    max_leaves=5,
)


def replaced(draw: st.DrawFn, value: Any) -> Any:
    """A value of primitives with another one somewhere in it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(values)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from(list(copy) if isinstance(copy, dict) else range(len(copy))))
    if isinstance(copy, dict) and draw(st.integers(0, 7)) == 0:
        del copy[key]
    else:
        copy[key] = replaced(draw, copy[key])
    return copy


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    return replaced(draw, value)


def one_line(read: Callable[[], Any], *names: str | Path) -> Any:
    """What `read` returns; None if it refuses in one line that names the file, by one of its names."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return read()
        except InputError as error:
            line = str(error)
    assert line.isprintable()
    assert any(str(name) in line for name in names), line
    return None


def refused(read: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value


# Scales.

SCALES = {
    "els": {"alpha_bar": [0.9, 0.5, 0.1], "patch_size": [3, 5, 7]},
    "bbels": {"alpha_bar": [0.5], "patch_size": [3]},
}
DEEP = "[" * 100_000


def is_table(table: ScaleTable) -> bool:
    levels, sizes = table.alpha_bar, table.patch_size
    falls = bool((levels[1:] < levels[:-1]).all()) and bool(((levels > 0) & (levels < 1)).all())
    return falls and bool(((sizes > 0) & (sizes % 2 == 1)).all()) and len(levels) == len(sizes) > 0


def read_scales(path: Path) -> None:
    tables = one_line(lambda: load_scales(path), path)
    assert tables is None or all(is_table(table) for table in tables.values())
    for machine in (None, "els"):
        table = one_line(lambda machine=machine: ScaleTable.load(path, machine), path)
        assert table is None or is_table(table)


@fuzz(100)
@given(change=damage(200))
def test_damaged_scales(tmp_path, change):
    (tmp_path / "scales.json").write_bytes(change(json.dumps(SCALES).encode()))
    read_scales(tmp_path / "scales.json")


@fuzz(100)
@given(content=changed(SCALES) | changed(SCALES["els"]))
@example(content={"els": {"alpha_bar": [0.5], "patch_size": [10**30]}})
@example(content={"els": {"alpha_bar": [10**400], "patch_size": [3]}})
@example(content={"alpha_bar": [0.5], "patch_size": [float("inf")]})
@example(content={"a\nb": []})
@example(content={"a\x1b[2Jb": SCALES["els"]})
def test_other_scales(tmp_path, content):
    (tmp_path / "scales.json").write_text(json.dumps(content))
    read_scales(tmp_path / "scales.json")


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "[" + "1" * 5000 + "]"], ids=["lists", "objects", "digits"])
def test_json_that_python_does_not_take_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    refused(lambda: read_json(tmp_path / "file.json"), "file.json is not a JSON file")


# Pickles and files of torch.save.

OFFICIAL_SCALES = [3, 3, 5, 7, 7, 9]


@functools.cache
def saved(kind: str) -> bytes:
    """A scale file, whole as torch writes it or a bare pickle."""
    file = io.BytesIO()
    torch.save(OFFICIAL_SCALES, file) if kind == "torch" else pickle.dump(OFFICIAL_SCALES, file)
    return file.getvalue()


@fuzz(120)
@given(change=damage(1000), kind=st.sampled_from(["torch", "bare"]))
def test_damaged_scale_files_of_the_papers_code(tmp_path, change, kind):
    path = tmp_path / "scales.pt"
    path.write_bytes(change(saved(kind)))
    table = one_line(lambda: ScaleTable.from_official(path, CosineSchedule()), path)
    assert table is None or is_table(table)


class Runs:
    """Leaves a witness where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.witness),)


def repacked(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive of torch.save with entries changed and their checksums made anew."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


@fuzz(100)
@given(change=damage(300), protocol=st.sampled_from([2, 4]))
def test_damaged_pickles_that_would_run_something(tmp_path, change, protocol):
    witness, path = tmp_path / "witness", tmp_path / "file.pt"
    harmful = pickle.dumps([1, Runs(witness), {"a": Runs(witness)}], protocol)
    path.write_bytes(change(harmful))
    one_line(lambda: ScaleTable.from_official(path, CosineSchedule()), path)
    one_line(lambda: read_batch(str(path), path.read_bytes()), path)
    path.write_bytes(repacked(saved("torch"), lambda name, old: change(harmful) if name.endswith("data.pkl") else old))
    for read in (load_official, read_checkpoint, read_plain):
        one_line(lambda read=read: read(path), path)
    assert not witness.exists()


@functools.cache
def paper_network() -> bytes:
    """A small network in a file of the paper's code."""
    ddim = papers.DDIM(papers.MinimalResNet(num_layers=1, emb_dim=16))
    with tempfile.TemporaryDirectory() as folder:
        return papers.save(ddim, Path(folder) / "official.pt").read_bytes()


# IDX.

IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 4, 4) + bytes(range(32))


@fuzz(100)
@given(change=damage(60), packed=st.booleans(), inside=st.booleans())
def test_damaged_idx_files(tmp_path, change, packed, inside):
    path = tmp_path / ("images.gz" if packed else "images")
    content = change(IDX) if inside or not packed else IDX
    path.write_bytes((gzip.compress(content) if inside else change(gzip.compress(content))) if packed else content)
    images = one_line(lambda: read_idx(path, 3), path)
    assert images is None or (images.dtype == torch.uint8 and images.ndim == 3)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 1, 1), (2, 4, 4)], ids=str)
def test_idx_files_take_no_more_memory_than_their_header_and_their_content_say(tmp_path, shape):
    path = tmp_path / "images.gz"
    header, zeros = IDX[:4] + struct.pack(">3I", *shape), gzip.compress(bytes(2**25))
    path.write_bytes(gzip.compress(header) + zeros * (64 if shape[0] == 2 else 1))  # 2 GiB, more than the test may take
    refused(lambda: read_idx(path, 3), "images.gz has", "where its header")


# CIFAR-10.

IMAGES = torch.arange(3 * 32 * 32).remainder(256).to(torch.uint8).reshape(1, 3, 32, 32)
BATCH = batch(IMAGES, [7])


@fuzz(150)
@given(change=damage(300))
def test_damaged_batches_of_cifar10(tmp_path, change):
    found = one_line(lambda: read_batch("the batch", change(BATCH)), "the batch")
    if found is not None:
        assert found.images.shape == (len(found.labels), 3, 32, 32)
        assert bool(((found.labels >= 0) & (found.labels < 10)).all())


@functools.cache
def cifar_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in (*TRAIN, "test_batch"):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(BATCH)
            archive.addfile(entry, io.BytesIO(BATCH))
    return buffer.getvalue()


@fuzz(60)
@given(change=damage(1200), inside=st.booleans())
def test_damaged_archives_of_cifar10(tmp_path, change, inside):
    content = cifar_archive()
    packed = gzip.compress(change(content), 1) if inside else change(gzip.compress(content, 1))
    (tmp_path / ARCHIVE).write_bytes(packed)
    found = one_line(lambda: cifar10(Request("cifar10", tmp_path, channels=3)), tmp_path)
    assert found is None or found[0].images.shape[1:] == (3, 32, 32)


def write_archive(root: Path, *entries: tarfile.TarInfo) -> None:
    """An archive of five batches, and these entries."""
    with tarfile.open(root / ARCHIVE, "w:gz") as archive:
        for name in (*TRAIN[1:], "test_batch"):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(BATCH)
            archive.addfile(entry, io.BytesIO(BATCH))
        for entry in entries:
            archive.addfile(entry, io.BytesIO(BATCH) if entry.isreg() else None)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_what_is_no_file_in_an_archive_is_not_read(tmp_path, kind):
    (tmp_path / "outside").write_bytes(BATCH)
    entry = tarfile.TarInfo(f"{FOLDER}/{TRAIN[0]}")
    entry.type, entry.linkname = kind, str(tmp_path / "outside")
    write_archive(tmp_path, entry)
    refused(lambda: cifar10(Request("cifar10", tmp_path, channels=3)), f"{FOLDER}/{TRAIN[0]} is not in", ARCHIVE)


@pytest.mark.parametrize("place", [f"../{FOLDER}", f"/tmp/{FOLDER}", f"a/../../{FOLDER}"])
def test_an_archive_writes_nothing_wherever_its_entries_point(tmp_path, place):
    root = tmp_path / "a" / "root"
    root.mkdir(parents=True)
    entry = tarfile.TarInfo(f"{place}/{TRAIN[0]}")
    entry.size = len(BATCH)
    write_archive(root, entry)
    one_line(lambda: cifar10(Request("cifar10", root, channels=3)), ARCHIVE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [root / ARCHIVE]


def test_an_entry_with_holes_takes_no_memory(tmp_path):
    """GNU tar's sparse files have a length that nothing in the archive bears out."""
    entry = tarfile.TarInfo(f"{FOLDER}/{TRAIN[0]}")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" + b"00000000000\0"  # one piece, of no bytes
    header[483:495] = b"%011o\0" % (8 * 2**30 - 1)  # the length with the holes
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(bytes(header) + buffer.getvalue()))
    refused(lambda: cifar10(Request("cifar10", tmp_path, channels=3)), ARCHIVE, "where a batch has")


# Checkpoints.

CONFIG = {
    "denoiser": {"_target_": "elslightning.ResNet", "channels": 1, "width": 16, "num_layers": 1},
    "schedule": {"_target_": "elslightning.CosineSchedule"},
}


def content(config: Any = CONFIG) -> dict[str, Any]:
    weights = {f"denoiser.{name}": value for name, value in network().state_dict().items()}
    return {"state_dict": weights, "elslightning": {"format": CHECKPOINT_FORMAT, "config": config}}


@functools.cache
def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(content(), buffer)
    return buffer.getvalue()


def load(path: Path) -> None:
    found = one_line(lambda: open_network(path), path)
    if found is not None:
        assert all(bool(value.isfinite().all()) for value in found[0].state_dict().values())


@fuzz(60)
@given(change=damage(4000))
def test_damaged_checkpoints(tmp_path, change):
    (tmp_path / "file.ckpt").write_bytes(change(checkpoint()))
    load(tmp_path / "file.ckpt")


@fuzz(120)
@given(change=damage(4000))
def test_checkpoints_with_a_damaged_pickle(tmp_path, change):
    packed = repacked(checkpoint(), lambda name, old: change(old) if name.endswith("data.pkl") else old)
    (tmp_path / "file.ckpt").write_bytes(packed)
    load(tmp_path / "file.ckpt")


@fuzz(60)
@given(mark=changed({"format": CHECKPOINT_FORMAT, "config": CONFIG}))
def test_checkpoints_with_other_metadata(tmp_path, mark):
    torch.save(content() | {"elslightning": mark}, tmp_path / "file.ckpt")
    load(tmp_path / "file.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:{_target_:os.mkdir,path:WITNESS}}",
        "${oc.decode:'{_target_: os.mkdir, path: WITNESS}'}",
        "\\${oc.create:{_target_:os.mkdir,path:WITNESS}}",
        "a${oc.create:{_target_:os.mkdir,path:WITNESS}}",
        "${oc.env:HOME}",
        "${state}",
    ],
)
@pytest.mark.parametrize("place", ["denoiser.channels", "schedule.stretch", "data.root", "machines.a.path", "denoiser"])
def test_a_checkpoint_cannot_name_code_by_an_interpolation(tmp_path, text, place):
    config: Any = json.loads(json.dumps(CONFIG | {"data": {}, "machines": {"a": {}}}))
    *sections, key = place.split(".")
    section = functools.reduce(lambda part, name: part[name], sections, config)
    section[key] = text.replace("WITNESS", str(tmp_path / "witness"))
    torch.save(content(config), tmp_path / "file.ckpt")
    refused(lambda: open_network(tmp_path / "file.ckpt"), "file.ckpt")
    assert not (tmp_path / "witness").exists()


def test_what_may_not_be_named_would_run_if_it_were(tmp_path):
    """The test above can fail."""
    with pytest.raises(InputError):
        build(CONFIG["denoiser"] | {"channels": f"${{oc.create:{{_target_:os.mkdir,path:{tmp_path / 'witness'}}}}}"})
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "options",
    [{"width": 2**30}, {"num_layers": 10**9}, {"conditional": True, "num_classes": 2**40}, {"channels": 10**18}],
    ids=str,
)
def test_a_checkpoint_cannot_ask_for_a_network_larger_than_its_weights(tmp_path, options):
    torch.save(content(CONFIG | {"denoiser": CONFIG["denoiser"] | options}), tmp_path / "file.ckpt")
    refused(lambda: open_network(tmp_path / "file.ckpt"))


def test_a_checkpoint_cannot_ask_for_endless_levels(tmp_path):
    unet = {"_target_": "elslightning.UNet", "channels": 1, "num_levels": 10**9}
    torch.save(content(CONFIG | {"denoiser": unet}), tmp_path / "file.ckpt")
    refused(lambda: open_network(tmp_path / "file.ckpt"), "denoiser.num_levels must be at most 16")


# Safetensors.


@functools.cache
def exported() -> bytes:
    strings = {"elslightning": str(CHECKPOINT_FORMAT)} | {name: json.dumps(part) for name, part in CONFIG.items()}
    return save({name: value.contiguous() for name, value in network().state_dict().items()}, strings)


@fuzz(100)
@given(change=damage(3000))
@example(change=lambda data: struct.pack("<Q", 2**63 - 1) + data[8:])
@example(change=lambda data: data[:8] + data[8:].replace(b'"shape":[16', b'"shape":[9999999999999999999', 1))
@example(change=lambda data: data.replace(b'{\\"_target_\\"', b'[[[\\"_target_\\"', 1))
def test_damaged_safetensors(tmp_path, change):
    path = tmp_path / "file.safetensors"
    path.write_bytes(change(exported()))
    load(path)
    found = one_line(lambda: read_tensors(path), path)
    assert found is None or all(isinstance(value, torch.Tensor) for value in found[0].values())


# Networks of the paper's code.


@fuzz(100)
@given(change=damage(6000), inside=st.booleans())
def test_damaged_networks_of_the_papers_code(tmp_path, change, inside):
    path, content = tmp_path / "official.pt", paper_network()
    path.write_bytes(
        repacked(content, lambda name, old: change(old) if name.endswith("data.pkl") else old)
        if inside
        else change(content)
    )
    found = one_line(lambda: load_official(path), path)
    assert found is None or all(bool(value.isfinite().all()) for value in found.state_dict().values())
    one_line(lambda: TorchFile(path), path)


# What reports read.


def write_run(directory: Path) -> Path:
    """What a run of a training and a comparison leaves, but for its checkpoint."""
    job(directory, 1)
    machines = some_summary(0.5)["machines"]
    rows = [
        {"pair": pair, "label": "", "machine": name, "steps": 2, "network_steps": 2}
        | dict.fromkeys(("pearson_r", "pearson_r2", "r2_score", "cosine", "mse"), 0.5)
        for name in machines
        for pair in range(4)
    ]
    for name, content in {
        "comparison.csv": rows,
        "calibration.csv": [
            {"machine": "bbels", "step": 1, "alpha_bar": 0.5, "patch_size": 3, "sample": 0, "agreement": 0.5}
        ],
        "receptive_field.csv": [{"step": 1, "alpha_bar": 0.5, "x0_size_50": 1, "x0_size_90": 3, "x0_size_99": 5}],
        "consistency.csv": [{"pair": 0, "machine": "bbels", "source": "network", "steps": 2, "consistency": 0.5}],
        "metrics.csv": [{"step": 1, "train/loss": 1.5, "val/loss": ""}, {"step": 2, "train/loss": "", "val/loss": 0.5}],
    }.items():
        write_csv(directory / name, content)
    write_json(directory / "run.json", {"seed": 0, "versions": {"torch": "2"}, "git": None})
    write_arrays(directory / "samples.npz", {"network_2": torch.zeros(4, 1, 3, 3), "bbels": torch.zeros(4, 1, 3, 3)})
    gradients = GradientField(torch.tensor([0.5]).double(), torch.ones(1, 3, 3), torch.ones(1, 3, 3), formal=7)
    write_arrays(directory / "receptive_field.npz", gradient_arrays(gradients))
    return directory


RUN_FILES = (
    *("comparison.csv", "calibration.csv", "receptive_field.csv", "consistency.csv", "metrics.csv", "summary.json"),
    *("run.json", "job.json", "scales.json", "samples.npz", "receptive_field.npz"),
    *(".hydra/config.yaml", ".hydra/overrides.yaml"),
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> dict[str, bytes]:
    directory = write_run(tmp_path_factory.mktemp("whole") / "0")
    return snapshot(directory)


def spoilt(root: Path, files: dict[str, bytes], name: str, content: bytes) -> Path:
    """The run with one file replaced."""
    for path, whole in (files | {name: content}).items():
        (root / "0" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "0" / path).write_bytes(whole)
    return root / "0"


def read_everything(directory: Path, name: str) -> None:
    """The run as reports read it, the job as a multirun does, and the sweep's table."""
    found = one_line(lambda: open_run(directory), directory, name)
    if found is not None:
        is_run(found)
        one_line(lambda: document("run", lead(found), sections(found, None, "", None)), directory, name)
    read = read_job(directory)
    assert read.status in (FINISHED, FAILED, UNFINISHED)
    assert all(isinstance(override, str) for override in read.overrides)
    assert all(value is None or isinstance(value, int | float) for value in (read.objective, read.seconds))
    one_line(lambda: report(directory.parent), directory.parent, "section sweep")


def is_run(run: Run) -> None:
    assert isinstance(run.config, DictConfig)
    assert all(isinstance(override, str) for override in run.overrides)
    compared = [] if run.comparison is None else [*run.comparison.rows, *run.comparison.consistency]
    assert all(bool(found.agreement.isfinite().all()) for found in run.calibrations.values())
    for row in (*compared, *run.receptive_field):
        for name, value in row.items():
            assert isinstance(value, str if name in ("machine", "source") else int | float | None)
            assert value is None or isinstance(value, str) or np.isfinite(value)
    assert all(is_table(table) for table in run.scales.values())
    assert all(np.isfinite(value) for points in run.losses.values() for _, value in points)
    assert all(array.ndim == 4 or name == "labels" for name, array in run.samples.items())
    assert run.gradients is None or run.gradients.size(0.9).shape == run.gradients.alpha_bar.shape
    assert not run.summary or all(run.values(machine, 2).shape for machine in run.machines)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing is slow, and not what is tested."""
    monkeypatch.setattr(sweep_report, "sweep", lambda *arguments, **options: None)
    monkeypatch.setattr(figures, "svg", lambda *arguments, **options: "<svg></svg>")


@fuzz(150)
@given(change=damage(600), name=st.sampled_from(RUN_FILES))
def test_damaged_runs(tmp_path, whole_run, change, name):
    read_everything(spoilt(tmp_path, whole_run, name, change(whole_run[name])), name)


@fuzz(100)
@given(data=st.data(), name=st.sampled_from([name for name in RUN_FILES if name.endswith((".json", ".yaml"))]))
def test_runs_of_another_content(tmp_path, whole_run, data, name):
    if name.endswith(".json"):
        text = json.dumps(data.draw(changed(json.loads(whole_run[name]))))
    else:
        text = json.dumps(data.draw(changed(OmegaConf.to_container(OmegaConf.create(whole_run[name].decode())))))
    read_everything(spoilt(tmp_path, whole_run, name, text.encode()), name)


LAUGHS = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
SPOILT = {
    "endless lists": (".hydra/config.yaml", LAUGHS),
    "endless overrides": (".hydra/overrides.yaml", LAUGHS.replace("a11: &a11", "a11:") + "\n"),
    "deep configuration": (".hydra/config.yaml", "a: " + DEEP),
    "code in a configuration": (".hydra/config.yaml", "a: !!python/object/apply:os.mkdir [WITNESS]"),
    "empty number": (".hydra/config.yaml", 'a: !!int ""'),
    "no text": (".hydra/config.yaml", "a: \udcff"),
    "list as configuration": (".hydra/config.yaml", "[1, 2]"),
    "overrides that are none": (".hydra/overrides.yaml", "a: 1"),
    "overrides that break off": (".hydra/overrides.yaml", "- [1"),
    "overrides that refer to something": (".hydra/overrides.yaml", "- data.root=${nowhere}"),
    "sweep that asks nothing": (".hydra/config.yaml", "sweep: 3"),
    "sweep with an axis of lists": (".hydra/config.yaml", "sweep: {x: [1], question: a}"),
    "long cell": ("comparison.csv", "pair,machine\n0," + "x" * 200_000),
    "no text in a table": ("metrics.csv", "step,val/loss\n1,\udcff"),
    "null bytes": ("calibration.csv", "machine,step\0\n"),
    "no row": ("receptive_field.csv", "step,x0_size_90\n"),
    "number without an end": (
        "comparison.csv",
        "pair,machine,steps,network_steps,pearson_r\n" + "1" * 400 + ",is,2,2,1",
    ),
    "summary without medians": ("summary.json", '{"pairs": 4, "steps": 2, "machines": {"is": {"2": {}}}}'),
    "summary without pairs": ("summary.json", '{"machines": {}}'),
    "summary of other machines": ("comparison.csv", "pair,machine,steps,network_steps,pearson_r\n0,is,9,9,0.5\n"),
    "deep summary": ("summary.json", DEEP),
    "record of another kind": (
        "job.json",
        '{"status": [], "overrides": "ab", "error": 1, "objective": [], "seconds": ""}',
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_runs(tmp_path, whole_run, name):
    file, text = SPOILT[name]
    content = text.replace("WITNESS", str(tmp_path / "witness")).encode(errors="surrogateescape")
    read_everything(spoilt(tmp_path, whole_run, file, content), file)
    assert not (tmp_path / "witness").exists()


def test_whole_runs_are_read(tmp_path, whole_run):
    """The tests above can fail."""
    directory = spoilt(tmp_path, whole_run, "run.json", whole_run["run.json"])
    run = open_run(directory)
    is_run(run)
    assert (len(run.comparison.rows), len(run.samples), len(run.losses), run.machines) == (8, 2, 2, ["bbels", "is"])
    assert report(tmp_path).skipped() is None


def test_overrides_are_taken_as_they_stand(tmp_path, whole_run):
    """They were resolved when the run was composed, and may refer to what is not there any more."""
    directory = spoilt(tmp_path, whole_run, ".hydra/overrides.yaml", b"- data.root=${oc.env:HOME}\n")
    assert read_run(directory).overrides == ["data.root=${oc.env:HOME}"]


def test_arrays_with_a_header_of_any_length_are_refused(tmp_path, whole_run):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, network_2=np.zeros((4, 1, 3, 3), np.float32))
    packed = repacked(
        buffer.getvalue(), lambda name, old: old.replace(b"(4, 1, 3, 3), }          ", b"(4, 1, 3, 300000000), } ")
    )
    directory = spoilt(tmp_path, whole_run, "samples.npz", packed)
    refused(lambda: read_run(directory), "samples.npz")
