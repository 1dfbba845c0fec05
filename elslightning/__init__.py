"""How much of what a convolutional diffusion model creates does a closed-form theory predict?

The names below are the public face; each is loaded when it is first asked for, so that importing the package is quick.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "diffusion.denoiser": ("Denoiser",),
    "diffusion.sampling": ("Trajectory", "ddim"),
    "diffusion.schedule": ("CosineSchedule", "add_noise"),
    "data.module": ("ImageDataModule",),
    "machines": (
        "BoundaryBrokenScoreMachine",
        "EquivariantLocalScoreMachine",
        "EquivariantScoreMachine",
        "IdealScoreMachine",
        "LocalScoreMachine",
        "MACHINES",
        "ParameterTable",
        "ScaleTable",
        "ScoreMachine",
    ),
    "networks": ("EpsDenoiser", "ResNet", "UNet"),
    "measurement.attribution": ("attribute", "attribute_process"),
    "measurement.calibration": ("calibrate",),
    "measurement.comparison": ("compare",),
    "measurement.consistency": ("consistency",),
    "measurement.gradients": ("gradient_field",),
    "measurement.mosaic": ("memorisation", "mosaic"),
    "measurement.measurement": ("Measurement",),
    "measurement.settings": ("CalibrationSettings", "ComparisonSettings"),
    "runs.checkpoints": ("Checkpoint", "load_network"),
    "runs.experiment": ("rebuild",),
    "runs.run": ("read_run",),
    "report.page.page": ("write_report",),
    "report.page.side_by_side": ("write_comparison",),
    "training.task": ("DenoisingTask", "exponential", "one_cycle"),
    "training.comparing": ("ELSComparison",),
    "training.bar": ("FitProgress",),
    "training.writers": ("MetricsFile",),
    "system.errors": ("ElslightningError", "InputError"),
    "cli.main": ("OutputDirectory",),
}
_PLACES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", "testing", *sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    """A public name, from the room where it lives (PEP 562)."""
    if name == "testing":
        return importlib.import_module("elslightning.testing")
    if name not in _PLACES:
        raise AttributeError(f"module 'elslightning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"elslightning.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
