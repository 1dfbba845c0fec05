"""The doctor: what is well is said so, and each thing that is not fails with what to do."""

import math
import re
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from files import write_fashion_mnist
from PIL import Image
from tiny import cli

from elslightning.cli import doctor
from elslightning.cli.doctor import Finding, report
from elslightning.machines.patches import PatchMachine
from elslightning.machines.registry import ENTRIES
from elslightning.measurement.cost import Cost

pytestmark = pytest.mark.reliability


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A working directory of its own, and nothing of W&B's of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _measured(monkeypatch):
    """A machine of which a step takes half a second, a sample 36 and a pair 3."""
    per = Cost({"calibrating bbels": 36.0}, {"bbels, 20 steps": 3.0}, {})
    monkeypatch.setattr("elslightning.cli.estimating.BUSY", math.inf)  # whatever else the machine does
    monkeypatch.setattr("elslightning.cli.estimating.seconds_per_step", lambda *arguments: 0.5)
    monkeypatch.setattr("elslightning.cli.estimating.cost", lambda *arguments: per)


def looked(part, what: str) -> Finding:
    """The finding of this name."""
    (found,) = [finding for finding in part if finding.what == what]
    return found


def test_where_all_is_well_it_says_so_and_leaves_nothing(tmp_path):
    done = cli("doctor")
    assert (done.code, done.err) == (0, ""), done.out
    lines = done.out.splitlines()
    assert lines[-1] == "all is well"
    assert all(line.startswith("ok ") for line in lines[:-2])
    for name in ("torch", "lightning", "numba", "threads", "GPU" if not torch.cuda.is_available() else "cuda:0"):
        assert any(line.split()[1] == name for line in lines[:-2])
    assert sum("single and double precision" in line for line in lines) == len(ENTRIES)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_marked_with_what_to_do_and_the_exit_code_is_1():
    done = cli("doctor", "nowhere")
    assert done.code == 1
    (failed,) = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    words = "FAIL nowhere is not a folder: give the one that data.root is to name"
    assert failed.split() == words.split()
    assert done.out.splitlines()[-1].endswith("would keep a run from working")


def test_the_table_is_aligned():
    text = report([Finding("a", "one"), Finding("longer", "two", "do this")])
    assert text == "ok   a       one\nFAIL longer  two: do this\n\n1 of 2 would keep a run from working"


def test_packages_are_held_against_the_bounds(monkeypatch):
    versions = {"lightning": "2.6.2", "torch": "2.6.0+cu124"}

    def version(name):
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name, metadata.version(name))

    monkeypatch.setattr(doctor, "requires", lambda name: ["lightning<2.7,>=2.6.4", "torch>=2.6", "numba>=0.60"])
    monkeypatch.setattr(doctor, "version", version)
    found = {finding.what: finding for finding in doctor._packages()}
    assert found["lightning"].remedy.startswith("pip install 'lightning")
    assert found["torch"].remedy == ""
    assert found["numba"][1:] == ("is missing", "pip install 'numba>=0.60'")


def test_extras_need_not_be_there(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["nothing-of-the-kind>=1; extra == 'dev'"])
    assert [finding.what for finding in doctor._packages()] == ["elslightning", "python"]


def test_a_device_that_cannot_be_used_is_named(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: True, device_count=lambda: 1))
    monkeypatch.setattr(torch, "ones", fail)
    found = looked(doctor._devices(), "cuda:0")
    assert found.found == "cannot be used"
    assert found.remedy.endswith("no kernel image")


@pytest.mark.parametrize(
    ("mode", "key", "netrc", "said", "fails"),
    [
        (None, None, None, "WANDB_MODE is not set, no account is configured", False),
        ("offline", None, None, "is offline", False),
        ("online", None, None, "is online, no account", True),
        ("online", "secret", None, "an account is configured", False),
        ("online", None, "machine api.wandb.ai", "an account is configured", False),
    ],
)
def test_wandb_is_judged_by_its_settings(monkeypatch, mode, key, netrc, said, fails):
    for name, value in (("WANDB_MODE", mode), ("WANDB_API_KEY", key)):
        if value:
            monkeypatch.setenv(name, value)
    if netrc:
        Path("netrc").write_text(netrc)
    (found,) = doctor._wandb()
    assert said in found.found
    assert "secret" not in " ".join(found)
    assert bool(found.remedy) == fails


def test_a_place_that_cannot_be_written_is_named(monkeypatch):
    def fail(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", fail)
    found = looked(doctor._room(), "outputs")
    assert "cannot be written (Permission denied)" in found.found
    assert "hydra.run.dir" in found.remedy


def test_a_full_disk_and_full_memory_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    assert all(looked(doctor._room(), what).remedy for what in ("disk", "memory"))


def test_a_machine_that_computes_something_else_is_named(monkeypatch):
    right = PatchMachine._compiled_partials

    def wrong(self, x_t, alpha_bar, chunks, patch_sizes):
        return [
            part._replace(weighted=part.weighted * 1.1) for part in right(self, x_t, alpha_bar, chunks, patch_sizes)
        ]

    monkeypatch.setattr(PatchMachine, "_compiled_partials", wrong)
    failed = [finding.what for finding in doctor._self_test() if finding.remedy]
    hard = ["BoundaryBrokenScoreMachine", "EquivariantLocalScoreMachine", "LocalScoreMachine"]
    # Soft machines without softness or response are the hard ones.
    assert sorted(failed) == sorted([*hard, *(f"Soft{name}" for name in hard)])


def test_data_sets_are_recognised(tmp_path):
    write_fashion_mnist(tmp_path / "idx")
    write_fashion_mnist(tmp_path / "torchvision" / "FashionMNIST" / "raw")
    (tmp_path / "photos" / "mine").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "mine" / f"{name}.png")
    both = {name: list(doctor._folder(str(tmp_path / name))) for name in ("idx", "torchvision", "photos")}
    found = {name: findings[0] for name, findings in both.items()}
    assert not any(finding.remedy for findings in both.values() for finding in findings)
    idx, photos = (f"data.root={tmp_path / name}" for name in ("idx", "photos"))
    assert both["idx"][1].found.startswith(
        f"elslightning train experiment=mnist_small {idx} or "
        f"elslightning train experiment=fashion_mnist_small {idx}: about "
    )
    assert both["photos"][1].found.startswith(f"elslightning train experiment=folder {photos}: about ")
    for finding in (both["idx"][1], both["photos"][1]):
        parts = ("training", "calibration", "comparison", "report")
        assert re.search(r" \(" + ", ".join(f"{part} [^,]+" for part in parts) + r"\)$", finding.found)
    assert "calibration 6 min" in both["photos"][1].found
    assert found["idx"].found == "data=mnist or data=fashion_mnist: 60 + 20 images of 1 x 28 x 28"
    assert found["torchvision"].found == "data=fashion_mnist: 60 + 20 images of 1 x 28 x 28"
    assert found["photos"].found.startswith("data=folder: 1 images to train and 1 to validate on (the last tenth")
    assert "warning: 2 of 2 images are of one colour" in found["photos"].found


def test_folders_without_data_and_with_damaged_data_fail(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    for name in "abc":
        (tmp_path / "text" / f"{name}.png").write_text("no image")
    damaged = write_fashion_mnist(tmp_path / "damaged")
    path = damaged / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    found = {name: list(doctor._folder(str(tmp_path / name))) for name in ("empty", "text", "damaged")}
    assert [len(findings) for findings in found.values()] == [1, 1, 1]
    assert found["empty"][0].found == "holds no data set"
    text = found["text"][0]
    assert text.found.startswith("data=folder: 2 images to train")
    assert all(f"{name}.png cannot be read as an image" in text.remedy for name in "abc")
    assert "train-images-idx3-ubyte has" in found["damaged"][0].found
    assert all(finding.remedy for (finding,) in found.values())


def test_folders_may_be_written_as_in_a_configuration(tmp_path):
    done = cli("doctor", f"data.root={write_fashion_mnist(tmp_path / 'data')}")
    assert done.code == 0, done.out
    assert "data=fashion_mnist" in done.out


def test_flags_are_refused_with_the_usage():
    done = cli("doctor", "--fix")
    assert (done.code, done.err) == (2, "elslightning: error: usage: elslightning doctor [FOLDER ...]\n")
