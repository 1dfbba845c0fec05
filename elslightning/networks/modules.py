"""ModuleDenoiser: any torch module that says what it predicts, seen as a posterior mean."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elslightning.diffusion.prediction import from_unit, noise_coefficients, to_unit
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.diffusion.schedules.edm import EDMSchedule
from elslightning.diffusion.schedules.flow import FlowSchedule
from elslightning.diffusion.schedules.unit import UnitSchedule, unit_alpha_bar
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.networks.adapter import ScheduledDenoiser
from elslightning.networks.interfaces import INTERFACES
from elslightning.networks.parametrisation import PARAMETRISATIONS, TIMES
from elslightning.system.checks import is_whole, number_between, one_of, raise_for
from elslightning.system.errors import InputError

_PIXELS = ([-1, 1], [0, 1])
_USUAL: dict[str | None, type[Schedule]] = {
    "sigma": EDMSchedule,
    "log_sigma": EDMSchedule,
    "noise": FlowSchedule,
    "signal": FlowSchedule,
}


class ModuleDenoiser(ScheduledDenoiser):
    """A torch module from elsewhere, which keeps its own parametrisation, time and input scale to itself.

    What it is fed and how its output is read: `elslightning.networks.parametrisation`. It must return the posterior
    mean's own parametrisation: output of classifier-free guidance is the mean of nothing. Where it returns 2C channels,
    the other C are a learned variance and are left out.

    Args:
        module: called as its interface says, see `elslightning.networks.interfaces.INTERFACES`.
        prediction: what it returns: eps, v, x0, score, edm, edm_eps, edm_raw, flow or flow_data; None where its
            interface says so.
        schedule: whose times it knows, or a name out of `elslightning.diffusion.schedules.SCHEDULES`; None takes EDM's
            or the flow's for a network that is told sigma or the share of noise.
        interface: of which library it is.
        time: what it is told, out of `elslightning.networks.parametrisation.TIMES`; None takes what goes with the
            prediction, and else the number of the level if the schedule is discrete, and t in [0, 1] if it is not.
        time_factor: what that is multiplied by; diffusers' flows count 1000 q.
        pixels: the range of its images, (-1, 1) or (0, 1).
        channels, size: of the images it takes; None leaves them free.
        num_classes: for a class-conditional one; None for another.
        receptive_field: in pixels; None if it sees the whole image, or that is not known.
        sigma_data: the constant of `edm_raw`.

    Raises:
        InputError: for values outside these, in a line each.
    """

    def __init__(
        self,
        module: nn.Module,
        prediction: str | None = None,
        schedule: Schedule | str | None = None,
        *,
        interface: str = "plain",
        time: str | None = None,
        time_factor: float = 1.0,
        pixels: Sequence[int] = (-1, 1),
        channels: int | None = None,
        size: int | Sequence[int] | None = None,
        num_classes: int | None = None,
        receptive_field: int | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        own = own_schedule(prediction, schedule, interface=interface, time=time, pixels=pixels)
        row = INTERFACES[interface]
        self._refuse(module, row.wants, row.conditional, interface, num_classes)
        counts = {"channels": channels, "num_classes": num_classes, "receptive_field": receptive_field}
        raise_for(
            *number_between("network.time_factor", time_factor, 0, 1e9),
            *number_between("network.sigma_data", sigma_data, 0, 1e6),
            *(
                f"network.{key} must be a whole number, at least 1, or null, not {value!r}"
                for key, value in counts.items()
                if value is not None and not is_whole(value, 1)
            ),
        )
        unit = list(pixels) == [0, 1]
        super().__init__(UnitSchedule(own) if unit else own)
        self.module = module
        self.own_schedule, self.unit = own, unit
        self.interface = interface
        self.parametrisation = row.prediction or str(prediction)
        wanted = row.time or time or PARAMETRISATIONS[self.parametrisation].time
        self.time = wanted or ("levels" if isinstance(own, DiscreteSchedule) else "unit")
        self.time_factor, self.sigma_data = float(time_factor), float(sigma_data)
        self.conditional, self.num_classes = num_classes is not None, num_classes
        self.receptive_field = receptive_field
        height, width = size if isinstance(size, Sequence) else (size, size)
        self.image_shape = (channels, height, width)

    @staticmethod
    def _refuse(module: Any, wants: str, conditional: bool, interface: str, num_classes: int | None) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(f"a network must be a torch module, not {type(module).__name__}")
        if wants and not hasattr(module, wants):
            raise InputError(f"interface={interface} needs a network with {wants}: {type(module).__name__} has none")
        if num_classes is not None and not conditional:
            raise InputError(f"interface={interface} takes no labels: leave num_classes out")

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean that its output implies, as in `Denoiser.forward`."""
        self.check_inputs(x_t, alpha_bar, labels)
        if labels is not None and not bool(((labels >= 0) & (labels < (self.num_classes or 0))).all()):
            raise InputError(f"labels must lie in 0 … {(self.num_classes or 0) - 1}, not {labels.unique().tolist()}")
        known, x = self._known(alpha_bar), x_t
        if self.unit:
            signal, _ = noise_coefficients(known, x_t)
            known = unit_alpha_bar(known)
            x = noise_coefficients(known, x_t)[0] * to_unit(x_t / signal)
        row = PARAMETRISATIONS[self.parametrisation]
        fed = row.feed(x, known, self.sigma_data)
        x0 = row.x0(x, self._ask(fed, known, labels), known, self.sigma_data)
        return from_unit(x0) if self.unit else x0

    def _ask(self, fed: Images, alpha_bar: AlphaBar, labels: Labels | None) -> Images:
        """What the module returns for the images it is fed.

        Raises:
            InputError: if it refuses them, or returns something else than images of that shape.
        """
        name = type(self.module).__name__
        times = TIMES[self.time](alpha_bar, self.own_schedule) * self.time_factor
        told = times.to(fed.device, torch.long if self.time == "whole" else fed.dtype)
        try:
            out = INTERFACES[self.interface].ask(self.module, fed, told, labels)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, RuntimeError, TypeError) as error:
            raise InputError(
                f"{name} does not take images of {tuple(fed.shape)} as interface={self.interface} gives them: {error}"
            ) from error
        if isinstance(out, Tensor) and out.shape[1:2] == (2 * fed.shape[1],):
            out = out[:, : fed.shape[1]]  # the others are a learned variance
        if not isinstance(out, Tensor) or out.shape != fed.shape:
            found = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise InputError(f"{name} returns {found} for images of {tuple(fed.shape)}: not that shape")
        return out


def own_schedule(
    prediction: str | None,
    schedule: Schedule | str | None,
    *,
    interface: str = "plain",
    time: str | None = None,
    pixels: Sequence[int] = (-1, 1),
) -> Schedule:
    """The schedule whose times a network knows, in its own terms; arguments and errors as of `ModuleDenoiser`."""
    raise_for(*one_of("network.interface", interface, INTERFACES))
    row = INTERFACES[interface]
    problems: list[str] = []
    if row.prediction is None:
        problems += one_of("network.prediction", prediction, PARAMETRISATIONS)
    elif prediction not in (None, row.prediction):
        problems.append(f"network.prediction is {row.prediction} with interface={interface}, not {prediction!r}")
    if time is not None:
        problems += one_of("network.time", time, TIMES)
    if not isinstance(pixels, Sequence) or list(pixels) not in _PIXELS:
        problems.append(f"network.pixels must be [-1,1] or [0,1], not {pixels!r}")
    raise_for(*problems)
    told = row.time or time or PARAMETRISATIONS[row.prediction or str(prediction)].time
    if schedule is None and told in _USUAL:
        return _USUAL[told]()
    if isinstance(schedule, str):
        raise_for(*one_of("network.schedule", schedule, SCHEDULES))
        schedule = SCHEDULES[schedule]()
    if not isinstance(schedule, Schedule):
        raise InputError(f"network.schedule must name the schedule it was trained with, one of {', '.join(SCHEDULES)}")
    if told in ("levels", "whole") and not isinstance(schedule, DiscreteSchedule):
        raise InputError(f"a network that counts levels needs a discrete schedule, not {type(schedule).__name__}")
    return schedule
