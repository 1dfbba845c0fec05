"""Tests that several processes run are all run, once each, and what goes wrong in one of them is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.reliability

CONFTEST = """
from workers import Workers

def pytest_runtestloop(session):
    files = {}
    for item in session.items:
        files.setdefault(item.path, []).append(item)
    Workers(session, 2, list(files.values())).report()
    return True
"""
SEVERAL = """
import os
import pathlib
import warnings

import pytest

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    yield tmp_path_factory.mktemp("made")
    print("let go")

@pytest.mark.parametrize("n", range(5))
def test_some(made, n):
    print("the number is", n)
    pathlib.Path(os.environ["RAN"], f"{os.path.basename(__file__)} {n} {os.getpid()}").touch()
    assert n != 3

def test_a_warning():
    warnings.warn("beware", stacklevel=1)

@pytest.mark.skip(reason="not today")
def test_not():
    pass

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

@pytest.fixture
def broken():
    raise ValueError("broken")

def test_with_what_is_broken(broken):
    pass
"""
LOST = """
import os

def test_well():
    pass

def test_that_ends_its_process():
    os._exit(3)
"""


def run(folder: Path, *words: str, **files: str) -> tuple[int, str, list[list[str]]]:
    """The exit code of these tests, what is printed, and file, number and process of each that ran."""
    ran = folder / "ran"
    ran.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "RAN": str(ran),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'temporary'}", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr, [path.name.split() for path in ran.iterdir()]


def test_every_test_is_run_once_and_every_outcome_is_told(tmp_path):
    code, printed, ran = run(tmp_path, one=SEVERAL, two=SEVERAL, three=SEVERAL)
    assert code == 1
    assert "3 failed, 15 passed, 3 skipped, 3 xfailed, 3 warnings, 3 errors" in printed
    assert printed.count("the number is 3") == 3  # and of those that pass nothing
    assert "the number is 2" not in printed
    assert "ValueError: broken" in printed
    assert "UserWarning: beware" in printed
    names = [f"test_{name}.py" for name in ("one", "two", "three")]
    assert sorted(each[:2] for each in ran) == sorted([name, str(n)] for name in names for n in range(5))
    assert all(len({process for file, _, process in ran if file == name}) == 1 for name in names)
    assert len({process for *_, process in ran}) <= 2
    assert {path.name for path in (tmp_path / "temporary").iterdir()} == {"worker-0", "worker-1"}


def test_a_process_that_is_lost_fails_the_test_that_it_ran_and_others_go_on(tmp_path):
    code, printed, ran = run(tmp_path, lost=LOST, several=SEVERAL)
    assert code == 1
    assert "FAILED test_lost.py::test_that_ends_its_process" in printed
    assert "its process ended with exit code 3" in printed
    assert len(ran) == 5
    assert "2 failed, 6 passed" in printed


def test_it_stops_where_it_is_told_to(tmp_path):
    code, printed, ran = run(tmp_path, "--exitfirst", one=SEVERAL)
    assert code == 1
    assert "1 failed, 3 passed" in printed
    assert "stopping after 1 failures" in printed
    assert sorted(int(n) for _, n, _ in ran) == [0, 1, 2, 3]
