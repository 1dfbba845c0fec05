"""Commands in processes of their own that can be killed: forked from one that has imported everything already."""

import multiprocessing
import multiprocessing.context
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny import undrawn

import elslightning.cli.verbs  # noqa: F401  what takes long is imported before the fork

THREADS = "1"


def _run(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
    os.environ |= environment
    with output.open("a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["elslightning", *arguments]
        from elslightning.cli.main import main

        with pytest.MonkeyPatch.context() as patch:
            undrawn(patch)
            main()


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # The server is told what to import, but not where from.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
    context.set_forkserver_preload(["victims"])
    return context


def start(
    *arguments: str, output: Path, environment: Mapping[str, str] | None = None
) -> multiprocessing.context.ForkServerProcess:
    """`elslightning ARGUMENTS`, with what it prints appended to a file."""
    os.environ |= {"OMP_NUM_THREADS": THREADS, "WANDB_MODE": "disabled"}
    process = _context().Process(target=_run, args=(arguments, output, dict(environment or {})))
    process.start()
    return process


def finish(*arguments: str, output: Path, seconds: float = 300) -> int:
    """The exit code of a command that runs to its end."""
    process = start(*arguments, output=output)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"elslightning {' '.join(arguments)} takes more than {seconds} seconds")
    return process.exitcode
