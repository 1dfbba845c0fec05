"""A machine is added to a copy of the package by a file, a YAML and an entry, and all that there is knows it."""

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest
import victims
from afresh import forget

import elslightning
from elslightning.cli.composing import conf_dir

TESTS = Path(__file__).resolve().parents[1]
KNOWN = ("reference.py", "denoisers.py", "machines/test_denoisers.py", "machines/test_registry.py")
"""The tests that run over all machines, and what they take from elsewhere."""

MACHINE = '''
"""mirrored: the ideal machine of images and their mirror images."""

import torch

from elslightning.machines.ideal import IdealScoreMachine


class MirroredScoreMachine(IdealScoreMachine):
    attributable = False

    def __init__(self, images, labels=None, **options):
        twice = None if labels is None else labels.repeat(2)
        super().__init__(torch.cat([images, images.flip(3)]), twice, **options)
'''
IMPORT = "from elslightning.machines.mirrored import MirroredScoreMachine\n"
ENTRY = '    Entry("mirrored", MirroredScoreMachine, "mirrored IS", "#123321", "#234432", "#9abba9"),\n'
YAML = """# @package machines.mirrored
_target_: elslightning.MirroredScoreMachine
_partial_: true
"""
TWIN = """    if machine == "mirrored":
        return ideal_posterior_mean(x_t, alpha_bar, torch.cat([images, images.flip(3)]))
"""

PROBE = """
import pytest
import torch
from hydra import compose, initialize_config_dir

import elslightning as els
from elslightning.cli import doctor
from elslightning.cli.composing import conf_dir
from elslightning.report import figures
from elslightning.report.page.page import render
from elslightning.runs.configuration import primitives
from elslightning.runs.targets import build, own


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_verbs_name_and_build_mirrored(verb, tmp_path):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(verb, ["machines=[mirrored]", f"paths.run_dir={tmp_path}"])
    machines = primitives(config, ["machines"])["machines"]
    made = build(machines["mirrored"])(torch.zeros(2, 1, 4, 4))
    assert (list(machines), type(made)) == (["mirrored"], els.MirroredScoreMachine)


def test_doctor_tries_mirrored(monkeypatch):
    (entry,) = [entry for entry in doctor.ENTRIES if entry.name == "mirrored"]
    monkeypatch.setattr(doctor, "ENTRIES", [entry])
    ((what, found, remedy),) = doctor._self_test()
    assert (what, remedy) == ("MirroredScoreMachine", "")
    assert "differ by" in found


def test_figures_and_pages_show_mirrored():
    assert figures.display_name("mirrored") == "mirrored IS"
    assert figures.SCREEN.colour("mirrored") == "#123321"
    page = render("title", "summary", [])
    assert page.count("--mirrored: #234432;") == 2
    assert page.count("--mirrored: #9abba9;") == 1


def test_files_of_any_version_may_name_mirrored():
    found = own({"_target_": "elslightning.old.place.MirroredScoreMachine"}, "a file")
    assert found == {"_target_": "elslightning.MirroredScoreMachine"}
"""


def insert(path: Path, before: str, text: str) -> None:
    """Puts text into a file before something that stands there once."""
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path.name} has another form"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package with one machine more."""
    package = Path(shutil.copytree(Path(elslightning.__file__).parent, tmp_path / "elslightning"))
    if not (package / "conf").is_dir():
        shutil.copytree(conf_dir(), package / "conf")
    (package / "machines" / "mirrored.py").write_text(MACHINE.lstrip(), encoding="utf-8")
    (package / "conf" / "machines" / "mirrored.yaml").write_text(YAML, encoding="utf-8")
    insert(package / "machines" / "registry.py", "\n\n@dataclass(frozen=True)\nclass Entry", IMPORT)
    insert(package / "machines" / "registry.py", ")\nMACHINES: dict", ENTRY)
    for name in KNOWN:
        place = tmp_path / "tests" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TESTS / name, place)
    insert(tmp_path / "tests" / "reference.py", '    if machine == "is":\n', TWIN)
    (tmp_path / "tests" / "test_mirrored.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = tests\n", encoding="utf-8")
    return tmp_path


def with_the_copy(folder: Path) -> None:
    """Has a process that begins import the package, and what tests share, from there only."""
    shared = [path.stem for path in TESTS.glob("*.py")]
    sys.path[:] = [str(folder), *(path for path in sys.path if path and not TESTS.is_relative_to(path))]
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(TESTS)]
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        del os.environ[name]
    forget(*shared)


def test_a_file_a_yaml_and_an_entry_are_all_it_takes(copied):
    done = victims.run(
        *("-v", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("-k", "mirrored and not refuses_images or test_the_configuration or their_labels or of_one_machine_each"),
        "tests",
        program="pytest",
        folder=copied,
        directory=copied,
        before=functools.partial(with_the_copy, copied),
    )
    assert done.code == 0, done.out + done.err
    for ran in (
        "TestDenoisers::test_batch_equals_one_at_a_time",
        "test_every_machine_is_its_twin_in_the_brute_force[mirrored]",
        "test_the_configuration_names_the_same_machines",
        "test_verbs_name_and_build_mirrored[compare]",
        "test_doctor_tries_mirrored",
        "test_figures_and_pages_show_mirrored",
        "test_files_of_any_version_may_name_mirrored",
    ):
        assert ran in done.out
