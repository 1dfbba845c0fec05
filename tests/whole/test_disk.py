"""Disks that are full or cannot be written: one line says which and why, and what was there stays as it was."""

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import papers
import pytest
from tiny import MEASUREMENT, TRAIN, cli, snapshot, train, undrawn
from trainings import SEVERAL_EPOCHS, assert_same_training, checkpoint, whole_files

from elslightning.report import figures
from elslightning.system.keeping import KEPT
from elslightning.training.writers import WholeCheckpoints

pytestmark = pytest.mark.reliability

FULL, READ_ONLY = "No space left on device", "Read-only file system"
SIZE = 8 * 2**20


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path_factory.mktemp("disk") / "mounted"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def disk(mounted) -> Iterator[Path]:
    """It, empty and writable."""
    yield mounted
    mount("-o", "remount,rw", str(mounted))
    gc.collect()  # a file that is removed while it is mapped keeps the file system from being remounted
    for path in mounted.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fill(disk: Path, left: int = 0) -> Path:
    """Fills all but some bytes of it, with a file that can be taken away."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - left))
    return filler


def spoil(disk: Path, kind: str) -> str:
    """Makes it one that cannot be written; returns what is then to be said."""
    if kind == "full":
        fill(disk)
        return FULL
    mount("-o", "remount,ro", str(disk))
    return READ_ONLY


@pytest.fixture(scope="module")
def trained(trained_once) -> Path:
    return trained_once


def assert_one_line(err: str, *parts: str) -> None:
    assert err.startswith("elslightning: error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "train": lambda run, disk: ["train", *TRAIN, f"hydra.run.dir={disk}/new"],
    "train again": lambda run, disk: ["train", *TRAIN, f"hydra.run.dir={disk}/run"],
    "resume": lambda run, disk: ["train", f"resume={disk}/run", "trainer.max_epochs=2"],
    "calibrate": lambda run, disk: ["calibrate", f"checkpoint={run}", *MEASUREMENT, f"hydra.run.dir={disk}/new"],
    "compare": lambda run, disk: ["compare", f"checkpoint={run}", *MEASUREMENT, f"hydra.run.dir={disk}/run"],
    "sample": lambda run, disk: ["sample", f"checkpoint={run}", "steps=2", f"hydra.run.dir={disk}/new"],
    "report": lambda run, disk: ["report", f"{disk}/run"],
    "several reports": lambda run, disk: ["report", f"{disk}/run", str(run), f"output={disk}/new.html"],
    "export": lambda run, disk: ["export", f"{disk}/run"],
    "export elsewhere": lambda run, disk: ["export", str(run), f"output={disk}/new.safetensors"],
    "sweep-report": lambda run, disk: ["sweep-report", str(disk)],
    "import-official": lambda run, disk: ["import-official", f"{disk}/run/official.pt"],
}


@pytest.mark.parametrize("kind", ["full", "read-only"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_cannot_be_written_is_named_and_left_as_it_was(trained, disk, monkeypatch, name, kind):
    monkeypatch.setattr(figures, "svg", lambda *arguments, **options: "<svg></svg>")  # to draw a page takes long
    shutil.copytree(trained, disk / "run")
    papers.save(papers.DDIM(papers.MinimalResNet(num_layers=1, emb_dim=16)), disk / "run" / "official.pt")
    reason = spoil(disk, kind)
    before = snapshot(disk)
    done = cli(*COMMANDS[name](trained, disk))
    assert done.code in (1, 2)
    assert_one_line(done.err.splitlines(keepends=True)[-1], str(disk), reason)  # behind the progress
    assert "Traceback" not in done.err
    assert snapshot(disk) == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A training that had space enough."""
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        return train(tmp_path_factory.mktemp("disk") / "whole", *SEVERAL_EPOCHS)


@pytest.mark.parametrize("save", [1, 3])
def test_a_training_that_runs_out_of_space_goes_on_when_there_is_some(whole, disk, monkeypatch, save):
    undrawn(monkeypatch)
    run, written = disk / "run", []
    write = WholeCheckpoints.save_checkpoint

    def save_checkpoint(*arguments: object, **options: object) -> None:
        written.append(1)
        if len(written) == save:
            fill(disk)
        write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(WholeCheckpoints, "save_checkpoint", save_checkpoint)
        done = cli("train", *SEVERAL_EPOCHS, f"hydra.run.dir={run}")
    assert done.code == 1
    assert_one_line(done.err.splitlines(keepends=True)[-1], str(run), FULL)
    whole_files(run)
    (disk / "filler").unlink()
    if save == 1:
        assert not list(run.rglob("*.ckpt*"))
        done = cli("train", *SEVERAL_EPOCHS, f"hydra.run.dir={run}")
    else:
        assert checkpoint(run)["epoch"] == save - 2
        done = cli("train", f"resume={run}")
    assert done.code == 0, done.err
    assert_same_training(run, whole)


def test_a_comparison_that_runs_out_of_space_keeps_what_it_had(trained, disk, monkeypatch):
    undrawn(monkeypatch)
    run, options = disk / "run", [f"checkpoint={trained}", *MEASUREMENT]
    assert cli("compare", *options, f"hydra.run.dir={disk / 'whole'}").code == 0
    fill(disk, left=2**17)
    monkeypatch.setattr("elslightning.cli.measuring.conclude", lambda *arguments: None)
    done = cli("compare", *options, f"hydra.run.dir={run}")
    assert done.code == 1
    assert_one_line(done.err.splitlines(keepends=True)[-1], str(run), FULL)
    whole_files(run)
    assert list((run / KEPT).iterdir())
    (disk / "filler").unlink()
    assert cli("compare", *options, f"hydra.run.dir={run}").code == 0
    for name in ("comparison.csv", "summary.json", "scales.json"):
        assert (run / name).read_bytes() == (disk / "whole" / name).read_bytes()
