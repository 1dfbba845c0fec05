"""The machines of a measurement by name: how each is made, and what is free in it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.machines.remembering import remembering
from elslightning.measurement.candidates import candidates_of
from elslightning.measurement.settings import CalibrationSettings
from elslightning.system.errors import InputError
from elslightning.system.keeping import Kept
from elslightning.system.processes import Processes

MachineFactory = Callable[..., Denoiser]


class Bank(NamedTuple):
    """Training images and labels as the machines of one process get them, and how they share them with others."""

    images: Tensor
    labels: Tensor | None
    options: Mapping[str, Any]

    @classmethod
    def of(cls, images: Tensor, labels: Tensor | None, device: torch.device, processes: Processes) -> "Bank":
        """What one of some processes holds on its device: all that it would have alone, or its share."""
        if processes.group is None:
            return cls(images.to(device), None if labels is None else labels.to(device), {})
        # Every n-th one: in data sorted by class, all shards have all classes.
        mine = slice(processes.rank, None, processes.count)
        options = {"process_group": processes.group, "own_images": True}
        return cls(images[mine].to(device), None if labels is None else labels[mine].to(device), options)


@dataclass(frozen=True)
class Factories:
    """Machines that are still to be made.

    Args:
        factories: by name, called as `factory(images, labels)`, with `scales=` where they take it.
        settings: what calibration tries.
        keep: given, evaluations of the machines are kept there.
    """

    factories: Mapping[str, MachineFactory]
    settings: CalibrationSettings
    keep: Kept | None = None

    @property
    def calibrated(self) -> list[str]:
        """The machines that have something free which calibration finds: scales, or another parameter."""
        return [name for name in self.factories if self._takes_scales(name) or self._open(name)]

    def _takes_scales(self, name: str) -> bool:
        return "scales" in _takes(self.factories[name])

    def _open(self, name: str) -> list[str]:
        """What is free in a machine beside the patch size, and was not given to it."""
        factory = self.factories[name]
        free = getattr(factory.func if isinstance(factory, partial) else factory, "free", ())
        takes = _takes(factory)
        return [one for one in free if one in takes and takes[one].default in (None, inspect.Parameter.empty)]

    def further(self, name: str) -> dict[str, list[float]]:
        """What calibration tries of that."""
        return {one: values for one, values in self.settings.further.items() if one in self._open(name)}

    def patch_sizes(self, name: str) -> Sequence[int] | None:
        """The patch sizes that calibration tries of a machine; None if it has none."""
        return self.settings.patch_sizes if self._takes_scales(name) else None

    def arguments(self, name: str, given: ParameterTable | Mapping[str, float]) -> dict[str, Any]:
        """How a machine is told what is free in it, by a table or by a single setting."""
        if isinstance(given, ParameterTable):
            return {"scales": given} if self._takes_scales(name) else dict.fromkeys(self._open(name), given)
        names = {PATCH_SIZE: "scales"}
        return {names.get(parameter, parameter): value for parameter, value in given.items()}

    def build(self, name: str, bank: Bank, **scales: Any) -> Denoiser:
        """A machine over a bank; another network among the machines has none."""
        factory = self.factories[name]
        takes = _takes(factory)
        options = {option: value for option, value in bank.options.items() if option in takes}
        machine = factory(bank.images, bank.labels, **scales, **options)
        if len(options) < len(bank.options) and not machine.learned:
            raise InputError(f"shard_bank=true, but machines.{name} takes no shard of a bank: it has no process_group")
        if self.keep is not None and isinstance(machine, ScoreMachine) and machine.process_group is None:
            return remembering(machine, self.keep)
        return machine

    def first(self, name: str) -> dict[str, float]:
        """The first setting that calibration tries of a machine."""
        return {
            key: values[0] for key, values in candidates_of(self.patch_sizes(name), self.further(name), None).items()
        }


def _takes(factory: MachineFactory) -> Mapping[str, inspect.Parameter]:
    """What a factory takes, by name."""
    # These are known by what they are, and asked again and again; any other object may compare as it likes.
    return _looked_up(factory) if isinstance(factory, partial | type | FunctionType) else _look_up(factory)


def _look_up(factory: MachineFactory) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(factory).parameters


_looked_up = lru_cache(64)(_look_up)
