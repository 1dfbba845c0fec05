"""Locks: one run per directory, and what file systems make of it."""

import errno
import fcntl
import os

import pytest

from elslightning.system.errors import InputError
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
    assert len(times) == 2
    assert (tmp_path / NAME).exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys, number):
    def none(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    Locks.take(tmp_path)
    assert "without locks" in capsys.readouterr().err


def test_other_failures_are_raised(tmp_path, monkeypatch):
    def broken(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        Locks.take(tmp_path)
