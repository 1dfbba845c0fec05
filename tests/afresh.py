"""Commands of Python in processes that are forked, and begin as new ones do but for the large packages they import."""

import gc
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

LOADED = ("elslightning", "hydra", "hydra_plugins", "omegaconf", "lightning", "submitit")
"""What such a process imports itself: the package, and what keeps something of how it was started."""

_start = subprocess.Popen


def forget(*names: str) -> None:
    """Has what is in `LOADED`, and modules of these names, be imported again."""
    _forgotten.update(sys.modules)  # nothing of it ends before the process does
    gc.freeze()
    for name in _forgotten:
        if name.partition(".")[0] in (*LOADED, *names):
            sys.modules.pop(name, None)


_forgotten: dict[str, ModuleType] = {}


def _words(command: str | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The program and arguments of a command of this Python, or nothing of any other."""
    if isinstance(command, str) or os.fspath(command[0]) != sys.executable:
        return []
    words = [os.fspath(word) for word in command[1:]]
    while words[:1] == ["-u"]:
        words.pop(0)
    return words if len(words) > 1 and (words[0] == "-m" or not words[0].startswith("-")) else []


class Forked:
    """As much of `subprocess.Popen` as those need that start processes here."""

    def __init__(
        self,
        words: list[str],
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._asking = threading.Lock()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _become(words, env, cwd, stdout, stderr)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        with self._asking:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(
    words: list[str],
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    stdout: IO[Any] | None,
    stderr: IO[Any] | None,
) -> int:
    """Runs a program in this process, as if it had begun with it; returns its exit code."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for place, file in enumerate((stdout, stderr), 1):
        if file is not None:
            os.dup2(file.fileno(), place)
    os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 65536))
    sys.stdout, sys.stderr = (os.fdopen(place, "w", buffering=1, closefd=False) for place in (1, 2))
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    forget()
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        return 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def start(command: Any, *rest: Any, **options: Any) -> Any:
    """`subprocess.Popen`, but for commands of this Python."""
    words = _words(command) if not rest and not options.get("shell") else []
    if not words:
        return _start(command, *rest, **options)
    return Forked(words, **{name: options.get(name) for name in ("env", "cwd", "stdout", "stderr")})


def forks() -> None:
    """Has this process fork the commands of this Python that it starts, and those the ones that they start."""
    subprocess.Popen = start  # type: ignore[assignment,misc]
