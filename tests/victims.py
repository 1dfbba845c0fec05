"""Commands in processes of their own: forked from one that has imported everything already, and easily killed."""

import atexit
import multiprocessing
import multiprocessing.context
import os
import runpy
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny import Done, undrawn
from tqdm import tqdm

import elslightning.cli.verbs  # noqa: F401  what takes long is imported before the fork
from elslightning.cli.main import main

THREADS = "1"


class Setting(NamedTuple):
    """Where a command runs.

    Attributes:
        output, errors: the files that what it prints is appended to.
        environment: variables beside those of the first test that started a process.
        directory: the working directory.
        before: called first.
        program: a script, or a module as of `python -m`; by default that of the console.
    """

    output: Path
    errors: Path
    environment: Mapping[str, str]
    directory: Path | None
    before: Callable[[], Any]
    program: Path | str | None


def nothing() -> None:
    """Does nothing."""


def _run(arguments: tuple[str, ...], setting: Setting) -> None:
    os.environ |= {"WANDB_MODE": "disabled", **setting.environment}
    if setting.directory is not None:
        os.chdir(setting.directory)
    with setting.output.open("a", buffering=1) as output, setting.errors.open("a", buffering=1) as errors:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        sys.argv = [str(setting.program or "elslightning"), *arguments]
        # That of tqdm is shared by all forks: one that is killed while it holds it would keep the others waiting.
        tqdm.set_lock(threading.RLock())
        setting.before()
        with pytest.MonkeyPatch.context() as patch:
            undrawn(patch)
            try:
                match setting.program:
                    case None:
                        main()
                    case Path():
                        runpy.run_path(str(setting.program), run_name="__main__")
                    case module:
                        runpy.run_module(module, run_name="__main__", alter_sys=True)
            finally:
                atexit._run_exitfuncs()  # which the processes of multiprocessing leave out


def context() -> multiprocessing.context.ForkServerContext:
    """That of the process which has imported everything."""
    os.environ |= {"OMP_NUM_THREADS": THREADS}
    context = multiprocessing.get_context("forkserver")
    # The server is told what to import, but not where from.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
    context.set_forkserver_preload(["victims", "warmed"])
    return context


def start(
    *arguments: str,
    output: Path,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    before: Callable[[], Any] = nothing,
    program: Path | str | None = None,
) -> multiprocessing.context.ForkServerProcess:
    """`elslightning ARGUMENTS`, with what it prints appended to a file, or to two: see `Setting`."""
    setting = Setting(output, errors or output, environment or {}, directory, before, program)
    process = context().Process(target=_run, args=(arguments, setting))
    process.start()
    return process


def finish(*arguments: str, output: Path, seconds: float = 300, **options: Any) -> int:
    """The exit code of a command that runs to its end."""
    process = start(*arguments, output=output, **options)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"elslightning {' '.join(arguments)} takes more than {seconds} seconds")
    return process.exitcode


def run(*arguments: str, folder: Path, **options: Any) -> Done:
    """The exit code of a command that runs to its end, and what it prints, which goes into files in `folder`."""
    output, errors = folder / "stdout", folder / "stderr"
    code = finish(*arguments, output=output, errors=errors, **options)
    return Done(code, output.read_text(), errors.read_text())
