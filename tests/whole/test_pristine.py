"""Processes that tests start: forked from one that has run none of them, and told apart by how they end."""

import os
import signal
import sys
import time

import pytest
from pristine import Process, together

HERE = {"touched": False}


def end(code: int) -> None:
    sys.exit(code)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def find_untouched() -> None:
    sys.exit(int(HERE["touched"]))


def fail_in_the_second(rank: int) -> None:
    if rank == 1:
        sys.exit(4)
    time.sleep(60)


@pytest.mark.parametrize("code", [0, 3])
def test_its_exit_code_is_told(code):
    process = Process(end, code)
    process.join(60)
    assert not process.is_alive()
    assert process.exitcode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_ended_it_is_told(number):
    process = Process(sleep, 60)
    assert process.is_alive()
    process.join(0.01)
    assert process.exitcode is None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == -number
    process.kill()  # nothing any more


def test_it_knows_nothing_of_what_tests_have_done(monkeypatch):
    monkeypatch.setitem(HERE, "touched", True)
    process = Process(find_untouched)
    process.join(60)
    assert process.exitcode == 0


def test_if_one_of_several_fails_the_others_are_ended():
    begun = time.monotonic()
    with pytest.raises(AssertionError, match="a process failed"):
        together(fail_in_the_second)
    assert time.monotonic() - begun < 50
