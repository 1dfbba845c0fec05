"""How the processes of a run are started, and whether they can find together."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import ClusterEnvironment

from elslightning.runs.configuration import key_of
from elslightning.system.errors import LaunchError, LostProcessError
from elslightning.system.processes import told

# What gloo and NCCL say of a process that is not there any more.
_CONNECTION = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Rr]ead error|[Ss]ocket")


def check_launch(
    devices: int,
    nodes: int,
    environment: ClusterEnvironment | None,
    devices_key: str = "trainer.devices",
    nodes_key: str = "trainer.num_nodes",
) -> None:
    """Finds out, before any work, whether processes can be started from this command line.

    Lightning starts what it needs on one node by running the command line again. Of a multirun that would be the whole
    sweep, in each of them. Processes that srun, torchrun or a user started compose their configuration one by one, each
    with its own time in the name of the run directory.

    Args:
        devices: of each node, a process each.
        nodes: how many there are.
        environment: in which they are started; None where nothing is.
        devices_key, nodes_key: where the numbers stand in the configuration.

    Raises:
        LaunchError: saying what to do instead.
    """
    processes = devices * nodes
    if processes == 1 or environment is None:
        return
    try:
        environment.validate_settings(num_devices=devices, num_nodes=nodes)
    except ValueError as error:
        raise LaunchError(f"{devices_key} and {nodes_key}: {' '.join(str(error).split())}") from error
    hydra, external = HydraConfig.get(), environment.creates_processes_externally
    several = hydra.mode == RunMode.MULTIRUN
    if several and not external:
        raise LaunchError(
            f"--multirun cannot start {processes} processes per job, for each would run the whole sweep: start the "
            "processes with srun, torchrun or hydra/launcher=submitit_slurm, or the jobs one by one"
        )
    # Hydra's own launcher runs the jobs where it is; others tell every process the directory.
    agreed = hydra.runtime.choices.get("hydra/launcher") != "basic"
    key = "hydra.sweep.dir" if several else "hydra.run.dir"
    given = any(key_of(override) == key for override in hydra.overrides.hydra)
    if (external or nodes > 1) and not (given or agreed):
        raise LaunchError(
            f"the {processes} processes of this job were not started by one, and need a directory in common: give "
            f"{key}=DIRECTORY to all of them"
        )


@contextmanager
def lost_named(trainer: pl.Trainer | Fabric, how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Says which process of a run has ended, where the others know of a broken connection only.

    Args:
        trainer: has started the processes, or knows how many there are.
        how_to_go_on: what to do then.

    Raises:
        LostProcessError: in place of what torch says of the connection.
    """
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or told(error) or not _CONNECTION.search(str(error)):
            raise
        raise LostProcessError(f"{_lost(trainer)}; {how_to_go_on()}") from error


def _lost(trainer: pl.Trainer | Fabric, seconds: float = 2) -> str:
    """Which of the processes that this one has started ended, and how."""
    processes: list[Any] = getattr(trainer.strategy.launcher, "procs", [])
    deadline = time.monotonic() + seconds
    while not (ended := [(rank, code) for rank, code in _codes(processes) if code]) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not ended:
        return f"one of the other {trainer.world_size - 1} processes of this run ended"
    return "; ".join(f"process {rank} of this run {_how(code)}" for rank, code in ended)


def _codes(processes: list[Any]) -> list[tuple[int, int | None]]:
    """The local ranks of started processes, with their exit codes."""
    return [(rank, process.poll()) for rank, process in enumerate(processes, 1)]


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
