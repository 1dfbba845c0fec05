"""What every test runs under: checked signatures, a thread per core, no network; and what several rooms share."""

import gc
import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read when torch is loaded: threads that wait by spinning take the cores from each other on a busy machine.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["WANDB_MODE"] = "offline"
# Two workers share the two cores: one thread for each of them, and for what they start.
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"

import pytest

# What is imported stays, and looking through it again and again for what could go takes a sixth of the time.
gc.disable()

# Modules whose signatures cannot be checked: numba reads these functions itself, and pytest rewrites those assertions.
UNHOOKED = {
    "elslightning.machines.approximate_loops",
    "elslightning.machines.choosing_loops",
    "elslightning.machines.distance_loops",
    "elslightning.machines.index_loops",
    "elslightning.machines.leading_loops",
    "elslightning.machines.loops",
    "elslightning.machines.painting_loops",
    "elslightning.machines.ranking_loops",
    "elslightning.machines.region_loops",
    "elslightning.machines.scanning_loops",
    "elslightning.machines.soft_loops",
    "elslightning.testing",
}


def _modules() -> list[str]:
    """Every module of the package, found without importing any; packages are left out, for a hook on a package
    would cover all that is in it."""
    spec = importlib.util.find_spec("elslightning")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    files = [path.relative_to(root.parent) for path in root.rglob("*.py") if path.name != "__init__.py"]
    return sorted(".".join(file.with_suffix("").parts) for file in files)


pytest.register_assert_rewrite("elslightning.testing", "files", "jobs", "measured", "trainings")
logging.root.addHandler(logging.NullHandler())  # or else what nobody listens to is printed
# A suite that a shell put into the background ignores Ctrl-C, and so would the processes that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # a process that only hands out tests to others loads nothing
    import jaxtyping
    import signatures
    import threadpoolctl
    import torch

    # A plugin has loaded NumPy before, and its threads wait by spinning: on busy cores that takes ten times as long.
    threadpoolctl.threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))
    jaxtyping.jaxtyped = signatures.checked
    jaxtyping.install_import_hook([name for name in _modules() if name not in UNHOOKED], "beartype.beartype")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


# Their processes are forked from one that has imported everything, see victims.py: one worker starts it for them all.
FORKED = (
    *("test_interruptions", "test_sweeps", "test_ddp", "test_stopping", "test_offline", "test_sharding"),
    "test_adding_a_machine",
)
# With whole files given out in this order, no worker is left alone with a long one at the end.
LONGEST = (
    *(*FORKED, "test_main", "test_report", "test_compiling", "test_disk", "test_every_schedule", "test_machines"),
    *("test_brought_networks", "test_conf", "test_report_browser", "test_resuming", "test_compatibility"),
    *("test_loggers", "test_same_training", "test_tour", "test_denoisers", "test_figures"),
    *("test_fuzz", "test_attribution", "test_approximate", "test_first_evening", "test_docs", "test_paper"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "forked" if Path(file).stem in FORKED else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()
    # With little to look through, the usual thresholds have it looked through all the time.
    gc.set_threshold(20_000, 10, 20)
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.freeze()  # or else all that is left is looked through five times more


@pytest.fixture(autouse=True, scope="session")
def _once() -> Iterator[None]:
    """What every command does again is done once."""
    from once import once  # the process that only hands out tests to others need not load the package

    with pytest.MonkeyPatch.context() as patch:
        once(patch)
        yield


@pytest.fixture(scope="module")
def no_drawing() -> Iterator[None]:
    """Empty files in place of pictures: drawing takes longer than all else, and has tests of its own."""
    from tiny import undrawn  # the process that only hands out tests to others need not load the package

    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        yield


@pytest.fixture(scope="module")
def no_layout() -> Iterator[None]:
    """Pictures whose parts lie anywhere, where nobody looks at them."""
    from tiny import unlaid

    with pytest.MonkeyPatch.context() as patch:
        unlaid(patch)
        yield


@pytest.fixture(scope="module")
def little_training() -> Iterator[None]:
    """A classifier of a few steps in place of the one that tells whether a sample is an image, which has tests."""
    from elslightning.measurement import fidelity  # the process that only hands out tests need not load the package

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "STEPS", 20)
        yield


@pytest.fixture(scope="module")
def plain_fonts() -> Iterator[None]:
    """PDFs without the tables of fonts that set text: it is set by then, and to read them takes longest."""
    from fontTools.subset import Options

    kept = Options._drop_tables_default
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Options, "_drop_tables_default", [*kept, "GDEF", "GPOS", "GSUB"])
        yield


@pytest.fixture
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in place of the charts of pages: to render them takes longer than all else."""
    from tiny import unrendered

    unrendered(monkeypatch)


@pytest.fixture(scope="module")
def measured_once() -> Iterator[None]:
    """For reports of the same run: what is measured of the same samples is measured once."""
    from once import measured_once

    with pytest.MonkeyPatch.context() as patch:
        measured_once(patch)
        yield


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a finished tiny training without pictures, which nobody may change."""
    from tiny import snapshot, train, undrawn

    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        directory = train(tmp_path_factory.mktemp("once") / "trained")
    before = snapshot(directory)
    yield directory
    assert snapshot(directory) == before


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No checks of signatures: what users get, so that the package's own errors show."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _is_local(address: Any) -> bool:
    """Whether a socket address is a Unix path or on this machine."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    return host in (None, "", "localhost", "::", "::1", "0.0.0.0", socket.gethostname()) or host.startswith("127.")


@pytest.fixture(autouse=True, scope="session")
def _offline() -> Iterator[None]:
    """Refuses every connection and name look-up that leaves this machine."""

    def guarded(function: Any, position: int) -> Any:
        def guard(*arguments: Any, **options: Any) -> Any:
            address = arguments[position]
            if not _is_local(address):
                raise OSError(f"tests are offline: no connection to {address}")
            return function(*arguments, **options)

        return guard

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_local((host,)):
            raise socket.gaierror(f"tests are offline: no look-up of {host}")
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect, 1), raising=False)
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex, 1), raising=False)
        patch.setattr(socket.socket, "sendto", guarded(socket.socket.sendto, -1), raising=False)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield
