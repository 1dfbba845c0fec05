"""What cannot be shown does not stop what is done."""

import errno
import io
import os
import subprocess
import sys

import pytest

from elslightning.system.display import Display, display

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("words", [["--help"], ["sample", "--cfg", "job"]])
def test_what_an_encoding_lacks_is_escaped_and_an_end_of_reading_is_no_end(words):
    code = f"import sys; sys.argv = ['elslightning', *{words}]; from elslightning.cli.main import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()  # as head does
    error = process.stderr.read()
    assert (process.wait(), error) == (0, b"")


def test_letters_that_the_encoding_lacks_are_escaped():
    held = io.BytesIO()
    stream = Display(io.TextIOWrapper(held, encoding="ascii"))
    print("r² … – ⩽", file=stream, flush=True)
    assert held.getvalue() == b"r\\xb2 \\u2026 \\u2013 \\u2a7d\n"


def test_nothing_is_written_once_nobody_reads(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with display():
            for _ in range(3):
                print("x" * 10_000, flush=True)
            os.write(stream.fileno(), b"what another process writes")
        assert sys.stdout is stream


class Full(io.StringIO):
    """A file on a disk without space."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_an_error_still():
    with pytest.raises(OSError, match="No space"):
        print("x", file=Display(Full()))
