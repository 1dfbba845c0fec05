"""Backbones of other distributions, found by the entry points with which they register themselves."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import Tensor, nn

from elslightning.system.errors import InputError

GROUP = "elslightning.denoisers"
"""A distribution names its classes there, in pyproject.toml: `[project.entry-points."elslightning.denoisers"]`."""


def registered() -> dict[str, EntryPoint]:
    """What installed distributions have registered, by name; nothing of it is loaded."""
    return {found.name: found for found in entry_points(group=GROUP)}


class RegisteredNetwork(nn.Module):
    """A backbone that an installed distribution registers, by its name there.

    A file that names one loads code of that distribution, and no other: whoever installed it trusts it.

    Args:
        name: as it is registered in the group `elslightning.denoisers`.
        channels: image channels.
        options: what else its class takes.

    Raises:
        InputError: for a name that no installed distribution registers, a class that does not take the options, and
            what is not a torch module.
    """

    def __init__(self, name: str, channels: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        known = registered()
        if name not in known:
            choices = ", ".join(sorted(known)) or "none is registered"
            raise InputError(f"denoiser.name={name} is none of {GROUP} ({choices}): install what brings it")
        try:
            network = known[name].load()(channels=channels, **(options or {}))
        except InputError:
            raise
        except Exception as error:  # it is another's code
            raise InputError(f"denoiser.name={name} cannot be made: {' '.join(str(error).split())}") from error
        if not isinstance(network, nn.Module):
            raise InputError(f"denoiser.name={name} is a {type(network).__name__}, and no torch module")
        self.network = network
        self.channels = int(getattr(network, "channels", channels))
        self.conditional = bool(getattr(network, "conditional", False))
        self.receptive_field: int | None = getattr(network, "receptive_field", None)
        self.prediction = str(getattr(network, "prediction", "eps"))

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """What it predicts for images (batch, channel, height, width) at times t in [0, 1]."""
        prediction: Tensor = self.network(x_t, t, labels)
        return prediction
