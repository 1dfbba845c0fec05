"""The doorway of public functions: what is given in place of a denoiser, a schedule or noise is answered with what
takes it."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor, nn

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import Schedule
from elslightning.system.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

# The attribute by which a network of another library is known, and the word for it.
_LIBRARIES = {"model_predictions": "lucidrains", "predict_eps": "smalldiffusion", "inner_model": "k_diffusion"}


def doorway(*, denoiser: str | None = None, schedule: str | None = None, images: str | None = None) -> Callable[[F], F]:
    """Has a function look at some of its arguments before anything else.

    Args:
        denoiser, schedule, images: the names of its arguments that must be a `Denoiser`, a `Schedule`, a tensor.
    """

    def decorated(function: F) -> F:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*arguments: Any, **options: Any) -> Any:
            given = dict(zip(names, arguments, strict=False)) | options
            if denoiser in given and not isinstance(given[denoiser], Denoiser):
                raise InputError(f"{denoiser} is {answer_to_network(given[denoiser])}")
            if schedule in given and not isinstance(given[schedule], Schedule):
                raise InputError(f"{schedule} is {answer_to_schedule(given[schedule])}")
            if images in given and not isinstance(given[images], Tensor):
                raise InputError(f"{images} is {answer_to_images(given[images])}")
            return function(*arguments, **options)

        return cast(F, checked)

    return decorated


def answer_to_network(value: Any) -> str:
    """What something in place of a denoiser is, and what takes it."""
    name = type(value).__name__
    if isinstance(value, str | Path):
        return f"a path, {str(value)!r}: els.load_network(path) opens it"
    if _of_diffusers(value):
        takes = "els.DiffusersDenoiser(unet, scheduler) takes it" if _is_unet(value) else "only a UNet2DModel is taken"
        return f"a diffusers {name}: {takes}"
    for attribute, interface in _LIBRARIES.items():
        if hasattr(value, attribute):
            return f"a network of {interface}, {name}: els.ModuleDenoiser(network, interface={interface!r}) takes it"
    if isinstance(value, nn.Module) and hasattr(value, "channels") and hasattr(value, "receptive_field"):
        return f"a backbone, {name}: els.NetworkDenoiser(backbone, schedule) takes it"
    if isinstance(value, nn.Module):
        return f"a plain torch module, {name}: els.ModuleDenoiser(module, prediction=..., schedule=...) takes it"
    return f"a {name}, and no els.Denoiser"


def answer_to_schedule(value: Any) -> str:
    """What something in place of a schedule is, and what makes one of it."""
    if isinstance(value, str):
        return f"a name, {value!r}: els.CosineSchedule() and its like are schedules"
    if _of_diffusers(value):
        return f"a diffusers {type(value).__name__}: els.DiffusersDenoiser(unet, scheduler).schedule is its schedule"
    return f"a {type(value).__name__}, and no els.Schedule"


def answer_to_images(value: Any) -> str:
    """What something in place of a tensor is."""
    if isinstance(value, np.ndarray):
        return "a numpy array: torch.from_numpy(array) makes a tensor of it"
    return f"a {type(value).__name__}, and no tensor (batch, channel, height, width)"


def _of_diffusers(value: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "diffusers" for kind in type(value).__mro__)


def _is_unet(value: Any) -> bool:
    return any(kind.__name__ == "UNet2DModel" for kind in type(value).__mro__)
