"""Networks that people bring, as the sections `network` of a configuration say them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules.unit import UnitSchedule
from elslightning.networks.adapter import ScheduledDenoiser
from elslightning.networks.diffusers_folder import load_diffusers, read_scheduler
from elslightning.networks.modules import ModuleDenoiser, own_schedule
from elslightning.runs.targets import section_of, trusted_object
from elslightning.system.errors import InputError
from elslightning.system.tensorfiles import read_tensors

# What goes on to `ModuleDenoiser` as it is.
_OPTIONS = (
    *("interface", "time", "time_factor", "pixels", "channels", "size", "num_classes", "receptive_field"),
    "sigma_data",
)


@dataclass(frozen=True)
class DiffusersNetwork:
    """A UNet that diffusers' `save_pretrained` wrote, with its scheduler.

    Args:
        path: the folder of the pipeline, or of the model.
    """

    path: str | Path | None = None

    @property
    def grid(self) -> Schedule:
        """The schedule whose grid it is compared along.

        Raises:
            InputError: without a folder with a scheduler that is understood.
        """
        return read_scheduler(self._folder())[1].schedule

    def open(self) -> ScheduledDenoiser:
        """The network, in evaluation mode, on the CPU; errors as of `load_diffusers`."""
        return load_diffusers(self._folder())

    def _folder(self) -> str | Path:
        if not isinstance(self.path, str | Path):
            raise InputError(f"network=diffusers needs network.path=FOLDER, not {self.path!r}")
        return self.path


@dataclass(frozen=True)
class ModuleNetwork:
    """A torch module of one's own or of another library, with what it predicts; its code runs only if it is trusted.

    Args:
        module: `mynet:build`, a class or function of a trusted module; called with `options` it returns the module.
        options: its arguments.
        weights: a file of safetensors with the weights, by the names of the module's `state_dict`; None leaves those
            that it is made with.
        prediction, schedule, interface, time, time_factor, pixels: as of `elslightning.networks.ModuleDenoiser`.
        channels, size, num_classes, receptive_field, sigma_data: of the same.
    """

    module: str | None = None
    options: Mapping[str, Any] | None = None
    weights: str | None = None
    prediction: str | None = None
    schedule: Any = None
    interface: str = "plain"
    time: str | None = None
    time_factor: float = 1.0
    pixels: Sequence[int] = (-1, 1)
    channels: int | None = None
    size: int | None = None
    num_classes: int | None = None
    receptive_field: int | None = None
    sigma_data: float = 0.5

    @property
    def grid(self) -> Schedule:
        """The schedule whose grid it is compared along, in our terms; nothing of the module is loaded.

        Raises:
            InputError: for words that `ModuleDenoiser` does not take.
        """
        own = own_schedule(self.prediction, self.schedule, interface=self.interface, time=self.time, pixels=self.pixels)
        return UnitSchedule(own) if list(self.pixels) == [0, 1] else own

    def open(self) -> ScheduledDenoiser:
        """The network, in evaluation mode.

        Raises:
            InputError: if its code is not trusted, with the words that would allow it; if it makes no torch module, or
                its weights do not fit.
        """
        if not isinstance(self.module, str) or self.module.count(":") != 1:
            raise InputError(f"network.module must be MODULE:NAME, such as mynet:build, not {self.module!r}")
        make = trusted_object(self.module.replace(":", "."), "network.module")
        with torch.random.fork_rng(devices=[]):  # whatever it draws
            try:
                module = make(**(self.options or {}))
            except Exception as error:  # it is another's code
                raise InputError(f"network.module={self.module} failed: {' '.join(str(error).split())}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"network.module={self.module} made a {type(module).__name__}, and no torch module")
        if self.weights is not None:
            try:
                module.load_state_dict(read_tensors(self.weights)[0])
            except RuntimeError as error:
                raise InputError(f"network.weights={self.weights} do not fit the module: {error}") from error
        names = (
            "interface",
            "time",
            "time_factor",
            "pixels",
            "channels",
            "size",
            "num_classes",
            "receptive_field",
            "sigma_data",
        )
        options = {name: getattr(self, name) for name in names}
        denoiser = ModuleDenoiser(module, self.prediction, self.schedule, **options)
        return denoiser.eval()


Brought = DiffusersNetwork | ModuleNetwork


def inherited_from(network: Brought) -> dict[str, Any]:
    """What a run takes from a network that is brought: its schedule, and that it is none of our architectures."""
    return {"denoiser": {}, "schedule": section_of(network.grid)}
