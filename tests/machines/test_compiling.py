"""Compiled code is kept by all that it was made of, and where it cannot be kept the loops run all the same."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import elslightning
from elslightning.machines.kernels import full_precision

pytestmark = pytest.mark.reliability

PACKAGE = Path(elslightning.__file__).parent
RUN = """
import torch
from elslightning.machines import LocalScoreMachine
images = torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8)
print(float(LocalScoreMachine(images, scales=3)(images[:1] * 0.5, torch.tensor([0.5], dtype=torch.float64)).sum()))
"""
PROBE = """
from typing import Any
from elslightning.machines.compiling import compiled
from elslightning.machines.lanes import exp2, load, store

@compiled
def powers(exponents: Any, found: Any) -> None:
    store(found, 0, exp2(load(exponents, 0)))
"""
"""Loops of a moment: the machines' own take many times as long to compile."""
RUN_PROBE = """
import numpy as np
from elslightning.machines.probe_loops import powers
found = np.zeros(64, np.float32)
powers(np.linspace(-3, 3, 64, dtype=np.float32), found)
print(found.tolist())
"""


def here():
    """What this process prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(RUN, {})
    return printed.getvalue()


def run(place, code=RUN, **environment):
    """What a process that uses the package in `place` prints."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    # Python takes its own compiled files for good by time and size alone, both of which a test leaves as they were.
    variables |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture
def copied(tmp_path):
    """The package, where its files may be changed."""
    keep = shutil.ignore_patterns("__pycache__", "conf", "templates")
    shutil.copytree(PACKAGE, tmp_path / "site" / "elslightning", ignore=keep)
    return tmp_path / "site"


def test_a_change_of_what_loops_are_made_of_is_a_change_of_the_loops(copied):
    """An upgrade may leave time stamps as they were."""
    machines = copied / "elslightning" / "machines"
    (machines / "__init__.py").write_text("")  # no other machines, nor torch
    (machines / "probe_loops.py").write_text(PROBE)
    first = run(copied, RUN_PROBE)
    assert first.returncode == 0, first.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in (machines / "__pycache__").glob("probe_loops.powers*.nbc")}
    assert kept
    assert run(copied, RUN_PROBE).stdout == first.stdout
    assert kept == {name: (machines / "__pycache__" / name).stat().st_mtime_ns for name in kept}
    lanes = machines / "lanes.py"
    text, times = lanes.read_text(encoding="utf-8"), lanes.stat()
    assert text.count("lambda x: 2.0**x") == 1
    lanes.write_text(text.replace("lambda x: 2.0**x", "lambda x: 1.5**x"), encoding="utf-8")
    os.utime(lanes, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = run(copied, RUN_PROBE)
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout != first.stdout


def test_without_a_place_for_compiled_code_there_are_machines_all_the_same(copied, tmp_path):
    """As in a container: the installation cannot be written, nor is there a home. A file in the place of a folder
    keeps root from writing, too."""
    machines = copied / "elslightning" / "machines"
    (machines / "__pycache__").write_text("no folder")
    (tmp_path / "home").write_text("no folder")
    # Compiled as fast as can be: the numbers are the same.
    done = run(copied, HOME=str(tmp_path / "home"), XDG_CACHE_HOME=str(tmp_path / "home"), NUMBA_OPT="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == here()
    said = [line for line in done.stderr.splitlines() if "compiled code cannot be kept" in line]
    assert len(said) == 1
    assert "NUMBA_CACHE_DIR" in said[0]


def test_without_a_compiler_machines_compute_in_torch():
    done = run(PACKAGE.parent, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(here()), abs=1e-5)


def test_precision_is_set_back_when_the_last_thread_has_left():
    """One that leaves first must not take the precision from one that is still at work."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with full_precision(torch.device("cpu")):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second():
        first_in.wait(10)
        with full_precision(torch.device("cpu")):
            second_in.set()
            first_out.wait(10)
            seen.append(torch.get_float32_matmul_precision())

    threads = [threading.Thread(target=work) for work in (first, second)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
