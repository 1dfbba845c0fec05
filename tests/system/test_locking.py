"""Locks: one run per directory, and what file systems make of it."""

import ast
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import elslightning
from elslightning.system.errors import InputError, VanishedError
from elslightning.system.files import replacing, write_text
from elslightning.system.locking import NAME, Locks

pytestmark = pytest.mark.reliability


@pytest.fixture(autouse=True)
def _released():
    yield
    Locks.release()


def test_a_directory_is_taken_once_and_given_back_without_a_trace(tmp_path):
    for _ in range(2):
        Locks.take(tmp_path)
        Locks.take(tmp_path)  # by the one that has it
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
        Locks.release()
        assert list(tmp_path.iterdir()) == []


def test_whoever_comes_second_is_refused(tmp_path):
    other = os.open(tmp_path / NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match=f"another run is at work in {tmp_path}"):
            Locks.take(tmp_path)
        assert (tmp_path / NAME).exists()
    finally:
        os.close(other)
    Locks.take(tmp_path)


def test_a_lock_on_a_file_that_is_gone_is_none(tmp_path, monkeypatch):
    lock, times = fcntl.flock, []

    def late(descriptor, operation):
        """The one before takes its file away between opening and locking."""
        if not times:
            (tmp_path / NAME).unlink()
        times.append(operation)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    Locks.take(tmp_path)
    assert len(times) >= 2
    other = os.open(tmp_path / NAME, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys, number):
    def none(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the line is all there is
        Locks.take(tmp_path)
    said = capsys.readouterr().err
    assert "without locks" in said
    assert said.count("\n") == 1
    write_text(tmp_path / "result.txt", "there")
    Locks.release()
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]


def test_other_failures_are_raised(tmp_path, monkeypatch):
    def broken(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        Locks.take(tmp_path)


def test_a_process_that_is_killed_gives_its_directory_back(tmp_path):
    code = (
        f"from elslightning.system.locking import Locks; Locks.take({str(tmp_path)!r}); print('taken', flush=True)\n"
        "input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"taken\n"
        with pytest.raises(InputError, match="another run is at work"):
            Locks.take(tmp_path)
        other.kill()
    assert (tmp_path / NAME).exists()
    Locks.take(tmp_path)


def gone(directory):
    shutil.rmtree(directory)


def made_again(directory):
    shutil.rmtree(directory)
    directory.mkdir()


def taken_by_another(directory):
    made_again(directory)
    (directory / NAME).touch()


def without_the_lock(directory):
    (directory / NAME).unlink()


def a_file(directory):
    shutil.rmtree(directory)
    directory.touch()


def there(directory):
    return {str(path) for path in directory.parent.rglob("*")}


@pytest.mark.parametrize("happens", [gone, made_again, taken_by_another, without_the_lock, a_file])
@pytest.mark.parametrize("place", ["result.txt", "checkpoints/last.ckpt"])
def test_nothing_is_written_for_a_directory_that_is_not_the_one_taken(tmp_path, happens, place):
    directory = tmp_path / "run"
    directory.mkdir()
    Locks.take(directory)
    write_text(directory / "first.txt", "there")
    happens(directory)
    before = there(directory)
    with pytest.raises(VanishedError, match=f"{directory} is no longer the directory that this run began in"):
        write_text(directory / place, "late")
    assert there(directory) == before
    Locks.release()  # what another run has there by now is its own
    assert there(directory) == before


def test_a_file_that_was_begun_before_the_directory_went_is_not_put_into_another(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    Locks.take(directory)

    def late():
        with replacing(directory / "result.txt") as temporary:
            temporary.write_text("half")
            taken_by_another(directory)

    with pytest.raises(VanishedError):
        late()
    assert there(directory) == {str(directory), str(directory / NAME)}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP])
def test_a_directory_without_locks_is_missed_too(tmp_path, monkeypatch, number):
    def none(descriptor, operation):
        raise OSError(number, os.strerror(number))

    directory = tmp_path / "run"
    directory.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", none)
        Locks.take(directory)
    taken_by_another(directory)
    with pytest.raises(VanishedError):
        write_text(directory / "result.txt", "late")


POSIX = ("fcntl", "resource", "pwd", "grp", "termios")
WITHOUT_POSIX = f"""
import builtins, importlib, pkgutil
whole = builtins.__import__

def guarded(name, globals=None, *rest, **more):
    if name in {POSIX} and (globals or {{}}).get("__name__", "").startswith(("elslightning", "filelock")):
        raise ImportError(f"{{globals['__name__']}} imports {{name}}, which Windows has not")
    return whole(name, globals, *rest, **more)

builtins.__import__ = guarded
import elslightning.cli.main
import elslightning.system
for module in pkgutil.iter_modules(elslightning.system.__path__, "elslightning.system."):
    importlib.import_module(module.name)
"""


def test_the_program_starts_without_what_only_posix_has():
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_names_what_only_posix_has():
    found = []
    for path in Path(elslightning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    found += [(path.name, alias.name) for alias in names if alias.name in POSIX]
                case ast.ImportFrom(module=module) if module in POSIX:
                    found.append((path.name, module))
    assert found == []
