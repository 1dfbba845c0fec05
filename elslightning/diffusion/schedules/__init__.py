"""Schedules by the names of the config group `schedule`: the paper's, and those of networks from elsewhere."""

from collections.abc import Mapping

from elslightning.diffusion.schedule import CosineSchedule, Schedule
from elslightning.diffusion.schedules.edm import EDMSchedule
from elslightning.diffusion.schedules.flow import FlowSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule
from elslightning.diffusion.schedules.sigmoid import SigmoidSchedule
from elslightning.diffusion.schedules.squared_cosine import SquaredCosineSchedule

SCHEDULES: Mapping[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "squaredcos": SquaredCosineSchedule,
    "sigmoid": SigmoidSchedule,
    "edm": EDMSchedule,
    "flow": FlowSchedule,
}

__all__ = [
    "SCHEDULES",
    "CosineSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "LinearSchedule",
    "Schedule",
    "SigmoidSchedule",
    "SquaredCosineSchedule",
]
