"""What a scheduler of diffusers says of its network: what it predicts, at which noise levels. No library is needed."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules.edm import EDMSchedule
from elslightning.diffusion.schedules.flow import FlowSchedule
from elslightning.diffusion.schedules.levels import LevelsSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule
from elslightning.diffusion.schedules.squared_cosine import SquaredCosineSchedule
from elslightning.system.checks import between, is_whole, number_between, raise_for
from elslightning.system.errors import InputError

_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_DISCRETE = (
    *("DDIMScheduler", "DDPMScheduler", "DDPMParallelScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
    *("DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "UniPCMultistepScheduler"),
)
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
SCHEDULERS = (*_DISCRETE, *_FLOW, *_EDM)
"""Those that are understood; a network does not depend on how it is sampled, so that most differ in nothing here."""


class Said(NamedTuple):
    """What a scheduler says of its network, in the words of `ModuleDenoiser`."""

    prediction: str
    schedule: Schedule
    time_factor: float = 1.0
    sigma_data: float = 0.5


def said(config: Mapping[str, Any], place: str = "the scheduler") -> Said:
    """Reads the configuration of a scheduler, with its `_class_name`.

    Of a flow, the shift is not looked at: it moves the steps of its sampler, and what the network is told stays 1000 q.

    Args:
        config: of scheduler_config.json, or `scheduler.config`.
        place: for errors.

    Raises:
        InputError: for a scheduler that is not known, or settings that are not understood.
    """
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise InputError(f"{place} is of class {name!r}, which is none of {', '.join(SCHEDULERS)}")
    try:
        if name in _EDM:
            return _edm(config)
        levels = config.get("num_train_timesteps", 1000)
        raise_for(*between("num_train_timesteps", levels, 2, 100_000))
        kind = config.get("prediction_type", "epsilon")
        if name in _FLOW or config.get("use_flow_sigmas") is True or kind == "flow_prediction":
            return Said("flow", FlowSchedule(), time_factor=float(levels))
        if kind not in _PREDICTIONS:
            raise InputError(f"prediction_type is {kind!r}, none of {', '.join(_PREDICTIONS)}")
        if config.get("timestep_type", "discrete") != "discrete":
            raise InputError(f"timestep_type is {config['timestep_type']!r}: discrete ones are read only")
        return Said(_PREDICTIONS[kind], _discrete(config, levels))
    except InputError as error:
        raise InputError(*(f"{place}: {problem}" for problem in error.problems)) from error


def _edm(config: Mapping[str, Any]) -> Said:
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise InputError(f"prediction_type is {config['prediction_type']!r}: EDM's preconditioning has epsilon")
    settings = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    schedule = EDMSchedule(**{key: config.get(key, value) for key, value in settings.items()})
    sigma_data = config.get("sigma_data", 0.5)
    raise_for(*number_between("sigma_data", sigma_data, 0, 1e6))
    return Said("edm_raw", schedule, sigma_data=float(sigma_data))


def _discrete(config: Mapping[str, Any], levels: int) -> Schedule:
    """The schedule of the levels: of ours where it follows a formula of ours."""
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    raise_for(*number_between("beta_start", start, 0, 1), *number_between("beta_end", end, 0, 1))
    shape, given = config.get("beta_schedule", "linear"), config.get("trained_betas")
    plain = given is None and not config.get("rescale_betas_zero_snr", False)
    if plain and shape == "linear":
        return LinearSchedule(beta_start=float(start), beta_end=float(end), levels=levels)
    if plain and shape == "squaredcos_cap_v2":
        return SquaredCosineSchedule(levels=levels)
    if given is not None:
        betas = torch.tensor(_numbers(given, levels), dtype=torch.float64, device="cpu")
    elif shape == "linear":
        betas = torch.linspace(start, end, levels, dtype=torch.float64, device="cpu")
    elif shape == "scaled_linear":
        betas = torch.linspace(math.sqrt(start), math.sqrt(end), levels, dtype=torch.float64, device="cpu").square()
    elif shape == "squaredcos_cap_v2":
        betas = SquaredCosineSchedule(levels=levels).betas()
    elif shape == "sigmoid":
        betas = torch.linspace(-6, 6, levels, dtype=torch.float64, device="cpu").sigmoid() * (end - start) + start
    else:
        raise InputError(f"beta_schedule is {shape!r}: linear, scaled_linear, squaredcos_cap_v2 or sigmoid are read")
    powers = (1 - betas).cumprod(dim=0)
    if config.get("rescale_betas_zero_snr", False):  # Lin et al., 2305.08891, algorithm 1
        roots = powers.sqrt()
        powers = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).square()
        powers = powers[:-1]  # the last level is noise alone, at which nothing is predicted of an image
    return LevelsSchedule(powers.tolist())


def _numbers(values: Any, count: int) -> list[float]:
    values = values.tolist() if hasattr(values, "tolist") else values  # a scheduler in memory has an array
    listed = isinstance(values, list | tuple) and all(
        (isinstance(value, float) or is_whole(value)) and 0 < value < 1 for value in values
    )
    if not listed or len(values) != count:
        raise InputError(f"trained_betas must be {count} numbers between 0 and 1")
    return [float(value) for value in values]
