"""Several processes that calibrate, compare or sample together, a device each."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from elslightning.cli.chosen import find_device
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes
from elslightning.training.launch import check_launch, lost_named


def problems(devices: int, nodes: int, device: torch.device) -> Iterator[str]:
    """Why so many devices do not go with the one that was named, a line each.

    Args:
        devices, nodes: processes of each node, and nodes, at least 1.
        device: what `find_device` made of the name.
    """
    if devices * nodes > 1 and device.index is not None:
        yield f"device={device} names one device: devices={devices} goes with device={device.type}"
    if devices * nodes > 1 and device.type not in ("cpu", "cuda"):
        yield f"devices={devices} goes with device=cpu or cuda, not {device.type}"
    if device.type == "cuda" and devices > torch.cuda.device_count():
        yield f"devices={devices}, but there are {torch.cuda.device_count()} GPUs on this machine"


@contextmanager
def together(cfg: DictConfig, how_to_go_on: str) -> Iterator[tuple[torch.device, Processes]]:
    """The device of this process, and who shares the work with it: `cfg.devices` processes on each of `cfg.num_nodes`.

    Those of one node are started by the command line run again; on several nodes srun or torchrun starts them.

    Args:
        how_to_go_on: what to do if one of them ends before the others.

    Raises:
        InputError: for a device that cannot be used, or not by so many.
        LaunchError: if they cannot be started from this command line.
        LostProcessError: if one has ended.
    """
    device = find_device(cfg.device)
    if cfg.devices == cfg.num_nodes == 1:
        yield device, ALONE
        return
    try:
        fabric = Fabric(accelerator=device.type, devices=cfg.devices, num_nodes=cfg.num_nodes, strategy="ddp")
    except MisconfigurationException as error:
        raise InputError(f"devices={cfg.devices}: {' '.join(str(error).split())}") from error
    environment = getattr(fabric.strategy, "cluster_environment", None)
    check_launch(cfg.devices, cfg.num_nodes, environment, "devices", "num_nodes")
    fabric.launch()
    with lost_named(fabric, lambda: how_to_go_on):
        yield fabric.device, Processes.world()
    dist.destroy_process_group()
