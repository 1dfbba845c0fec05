"""Measurement: calibrate the machines against a network, compare them with it, and write down what came out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elslightning.calibration import OBJECTIVES, Calibration, calibrate
from elslightning.comparison import compare
from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.results import Result
from elslightning.scales import ScaleTable
from elslightning.schedule import CosineSchedule
from elslightning.shapes import Progress, no_progress

MachineFactory = Callable[..., Denoiser]


def _at_least(minimum: int, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise InputError(f"{name.replace('__', '.')} must be a whole number, at least {minimum}, not {value!r}")


@dataclass(frozen=True)
class CalibrationSettings:
    """How scales are calibrated; see `elslightning.calibration.calibrate`.

    Args:
        steps: steps of the network's reverse process; one scale each.
        patch_sizes: odd patch sizes to try, increasing.
        num_samples: number of noises whose best sizes the median is taken of.
        objective: "cosine" or "mse".

    Raises:
        InputError: for a value that cannot work, naming it.
    """

    steps: int = 20
    patch_sizes: Sequence[int] = (3, 5, 7, 9, 11, 13, 15, 17)
    num_samples: int = 32
    objective: str = "cosine"

    def __post_init__(self) -> None:
        _at_least(1, calibration__steps=self.steps, calibration__num_samples=self.num_samples)
        sizes = list(self.patch_sizes)
        odd = all(isinstance(size, int) and size >= 1 and size % 2 == 1 for size in sizes)
        if not sizes or not odd or sizes != sorted(set(sizes)):
            raise InputError(f"calibration.patch_sizes must be odd, positive and increasing, not {sizes}")
        if self.objective not in OBJECTIVES:
            raise InputError(f"calibration.objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")


@dataclass(frozen=True)
class ComparisonSettings:
    """How machines and network are compared; see `elslightning.comparison.compare`.

    Args:
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's: one number or several. The first gives the logged scalars.
        num_pairs: number of noises.
        every_n_epochs: also compare while training, after every so many epochs; None compares at the end only.
        batch_size: pairs sampled at once.

    Raises:
        InputError: for a value that cannot work, naming it.
    """

    steps: int = 20
    network_steps: int | Sequence[int] = 20
    num_pairs: int = 100
    every_n_epochs: int | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        counts = [self.network_steps] if isinstance(self.network_steps, int) else list(self.network_steps)
        if not counts:
            raise InputError("comparison.network_steps must name at least one number of steps")
        for count in counts:
            _at_least(1, comparison__network_steps=count)
        _at_least(
            1,
            comparison__steps=self.steps,
            comparison__num_pairs=self.num_pairs,
            comparison__batch_size=self.batch_size,
            comparison__every_n_epochs=1 if self.every_n_epochs is None else self.every_n_epochs,
        )


@dataclass
class Measurement:
    """Calibration and comparison of named machines with a network, from one seed.

    Args:
        machines: factories by name, called as `factory(images, labels)`, with `scales=` where they take it.
        calibration, comparison: settings.
        seed: noises are drawn from it on the CPU: the same on every device.
        scales: given, these are used and nothing is calibrated.
    """

    machines: Mapping[str, MachineFactory]
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    comparison: ComparisonSettings = field(default_factory=ComparisonSettings)
    seed: int = 0
    scales: Mapping[str, ScaleTable] | None = None

    def __post_init__(self) -> None:
        if not self.machines:
            raise InputError("machines must name at least one machine")

    @property
    def calibrated(self) -> list[str]:
        """The machines that have scales."""
        return [name for name, factory in self.machines.items() if "scales" in inspect.signature(factory).parameters]

    def check(self, network: Denoiser, images: Tensor, labels: Tensor | None, schedule: CosineSchedule) -> None:
        """Finds out, before any long work, what calibration and comparison could stumble over.

        Raises:
            InputError: naming it.
        """
        labels = network.select_labels(labels)
        if network.conditional and labels is None:
            raise InputError("the network is class-conditional, but the data has no labels")
        # One image of the last class: the network refuses what does not fit it.
        last = slice(0, 1) if labels is None else labels.argmax()[None]
        device = next((parameter.device for parameter in network.parameters()), images.device)
        with torch.no_grad():
            network(
                images[last].to(device),
                torch.tensor([0.5], dtype=torch.float64),
                None if labels is None else labels[last].to(device),
            )
        for name in self.calibrated:
            if self.scales is None:
                for size in self.calibration.patch_sizes:
                    self.machines[name](images, labels, scales=size)
            else:
                table = self._scales_of(name, self.scales)
                table.at(schedule.noise_levels(self.comparison.steps))
                self.machines[name](images, labels, scales=table)

    def calibrate(
        self,
        network: Denoiser,
        images: Tensor,
        labels: Tensor | None,
        schedule: CosineSchedule,
        progress: Progress = no_progress,
    ) -> Result:
        """Calibrates every machine that has scales against `network`; see `run` for the arguments."""
        settings, labels = self.calibration, network.select_labels(labels)
        noise, classes = self._noise(settings.num_samples, images, labels, stream=1)
        calibrations: dict[str, Calibration] = {}
        for name in self.calibrated:
            calibrations[name] = calibrate(
                network,
                self.machines[name](images, labels, scales=settings.patch_sizes[0]),  # type: ignore[arg-type]
                schedule,
                steps=settings.steps,
                patch_sizes=settings.patch_sizes,
                noise=noise,
                labels=classes,
                objective=settings.objective,
                progress=progress,
                what=f"calibrating {name}",
            )
        return Result(calibrations, {name: found.scales for name, found in calibrations.items()})

    def run(
        self,
        network: Denoiser,
        images: Tensor,
        labels: Tensor | None,
        schedule: CosineSchedule,
        progress: Progress = no_progress,
    ) -> Result:
        """Calibrates, unless scales were given, and compares.

        Args:
            network: the denoiser to explain.
            images: (N, channel, height, width), its training images, on its device.
            labels: (N,) int64 or None; used if the network is conditional.
            schedule: gives the noise levels.
            progress: told of every step.

        Raises:
            InputError: see `check`.
        """
        self.check(network, images, labels, schedule)
        if self.scales is None:
            result = self.calibrate(network, images, labels, schedule, progress)
        else:
            result = Result({}, {name: self._scales_of(name, self.scales) for name in self.calibrated})
        labels = network.select_labels(labels)
        settings = self.comparison
        noise, classes = self._noise(settings.num_pairs, images, labels, stream=2)
        comparison = compare(
            network,
            self.build(images, labels, result.scales),
            schedule,
            steps=settings.steps,
            network_steps=settings.network_steps,
            noise=noise,
            labels=classes,
            batch_size=settings.batch_size,
            progress=progress,
        )
        return Result(result.calibrations, result.scales, comparison)

    def build(self, images: Tensor, labels: Tensor | None, scales: Mapping[str, ScaleTable]) -> dict[str, Denoiser]:
        """All machines over a bank, those that take scales with theirs."""
        return {
            name: factory(images, labels, scales=self._scales_of(name, scales))
            if name in self.calibrated
            else factory(images, labels)
            for name, factory in self.machines.items()
        }

    def _scales_of(self, name: str, scales: Mapping[str, ScaleTable]) -> ScaleTable:
        if name not in scales:
            raise InputError(f"there are no scales for the machine {name}; there are for {', '.join(scales) or 'none'}")
        return scales[name]

    def _noise(self, count: int, images: Tensor, labels: Tensor | None, stream: int) -> tuple[Tensor, Tensor | None]:
        """Noise for `count` samples, and as labels the classes of the bank in turn."""
        state = np.random.SeedSequence([self.seed, stream]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        noise = torch.randn(count, *images.shape[1:], generator=generator).to(images.device)
        if labels is None:
            return noise, None
        present = labels.unique()
        return noise, present[torch.arange(count, device=labels.device) % len(present)]
