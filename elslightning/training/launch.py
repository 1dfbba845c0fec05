"""How the processes of a training are started, and whether they can find together."""

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from elslightning.runs.configuration import key_of
from elslightning.system.errors import LaunchError


def check_launch(trainer: pl.Trainer) -> None:
    """Finds out, before any work, whether a trainer's processes can be started from this command line.

    Lightning starts what it needs on one node by running the command line again. Of a multirun that would be the whole
    sweep, in each of them. Processes that srun, torchrun or a user started compose their configuration one by one, each
    with its own time in the name of the run directory.

    Raises:
        LaunchError: saying what to do instead.
    """
    processes = trainer.num_devices * trainer.num_nodes
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if processes == 1 or environment is None:
        return
    try:
        environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except ValueError as error:
        raise LaunchError(f"trainer.devices and trainer.num_nodes: {' '.join(str(error).split())}") from error
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
    if (external or trainer.num_nodes > 1) and not (given or agreed):
        raise LaunchError(
            f"the {processes} processes of this job were not started by one, and need a directory in common: give "
            f"{key}=DIRECTORY to all of them"
        )
