"""The public face: what `import elslightning as els` offers, what it costs, and the ways to start the program."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import elslightning as els
from elslightning.machines.registry import MACHINES
from elslightning.runs.targets import BUILDABLE, own
from elslightning.system.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
PROMISED = [
    "MACHINES",
    "BoundaryBrokenScoreMachine",
    "Denoiser",
    "EpsDenoiser",
    "ResNet",
    "UNet",
    "ScaleTable",
    "CosineSchedule",
    "ddim",
    "load_network",
    "calibrate",
    "compare",
    "attribute",
    "memorisation",
    "consistency",
    "gradient_field",
    "read_run",
    "rebuild",
    "write_report",
    "testing",
    "Measurement",
    "ImageDataModule",
    "DenoisingTask",
    "InputError",
]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", PROMISED)
def test_what_is_promised_is_there_and_seen_by_whoever_lists_it(name):
    assert getattr(els, name) is not None
    assert name in els.__all__
    assert name in dir(els)


@pytest.mark.parametrize("name", els.__all__)
def test_every_listed_name_is_found_where_type_checkers_look_for_it(name):
    found = getattr(els, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert found.__name__ == name
        assert found.__module__.startswith(els._MODULES[name])


def test_the_list_names_each_thing_once_and_by_its_own_name():
    lines = (Path(els.__file__).parent / "__init__.pyi").read_text().splitlines()
    names = [line.split() for line in lines if line.startswith("from ")]
    assert all(words[3] == words[5] for words in names)
    assert len({words[3] for words in names}) == len(names) == len(els._MODULES)
    assert (Path(els.__file__).parent / "py.typed").is_file()


def test_machines_are_public_by_the_registry():
    assert all(getattr(els, machine.__name__) is machine for machine in MACHINES.values())
    assert els.MACHINES is MACHINES


def test_what_is_not_there_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="module 'elslightning' has no attribute 'nonsense'"):
        els.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="nonsense"):
        from elslightning import nonsense  # noqa: F401


def test_importing_is_free_of_torch():
    code = "import sys, elslightning; print(elslightning.__version__, {'torch', 'lightning', 'numpy'} & {*sys.modules})"
    assert python("-c", code).stdout == f"{els.__version__} set()\n"


@pytest.mark.parametrize("module", ["elslightning", "elslightning.cli"])
def test_both_modules_are_the_program_and_free_of_torch_until_there_is_work(module):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['elslightning', sys.argv[1]]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "assert not {'torch', 'lightning'} & {*sys.modules}\n"
    )
    done = {option: python("-c", code, option) for option in ("--version", "--help")}
    assert done["--version"].stdout == f"{els.__version__}\n", done["--version"].stderr
    assert "usage: elslightning VERB" in done["--help"].stdout
    assert [one.returncode for one in done.values()] == [0, 0]


def test_an_unknown_verb_fails_however_the_program_is_started():
    done = python("-m", "elslightning.cli", "trian")
    assert done.returncode == 2
    assert "there is no verb 'trian'" in done.stderr


def test_the_version_is_that_of_the_project():
    if (CHECKOUT / "pyproject.toml").is_file():
        assert tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"] == els.__version__


@pytest.mark.reliability
def test_what_a_file_may_have_built_are_classes_out_of_the_list():
    assert all(inspect.isclass(getattr(els, name)) for name in BUILDABLE)
    assert {machine.__name__ for machine in MACHINES.values()} <= BUILDABLE
    for name in BUILDABLE:
        assert own({"_target_": f"elslightning.anywhere.{name}"}, "file") == {"_target_": f"elslightning.{name}"}


@pytest.mark.reliability
@pytest.mark.parametrize("name", sorted({*els.__all__, "cli.main.main", "system.files.write_text"} - BUILDABLE))
def test_nothing_else_is_built_and_no_function_ever(name):
    with pytest.raises(InputError, match="not a class of elslightning's"):
        own({"_target_": f"elslightning.{name}"}, "file")
