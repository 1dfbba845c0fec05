"""Measurement: calibrate the machines against a network, compare them with it, and write down what came out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from elslightning.data.request import Split
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.doorway import check_bank
from elslightning.machines.parameters import ParameterTable
from elslightning.measurement.bringing import RememberedNetwork, check_network, check_peer, device_of, repeats
from elslightning.measurement.calibration import Calibration, calibrate
from elslightning.measurement.candidates import candidates_of, settings_to_check
from elslightning.measurement.comparing import compare
from elslightning.measurement.factories import Bank, Factories, MachineFactory
from elslightning.measurement.gradients import gradient_field
from elslightning.measurement.heldout import draw, heldout
from elslightning.measurement.names import HELDOUT
from elslightning.measurement.result import Result
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.measurement.starts import CALIBRATED, COMPARED, HELD_OUT, Starts
from elslightning.system.checks import raise_for
from elslightning.system.errors import InputError
from elslightning.system.keeping import Kept
from elslightning.system.processes import ALONE, Processes


@dataclass
class Measurement:
    """Calibration and comparison of named machines with a network, from one seed.

    Args:
        machines: factories by name, called as `factory(images, labels)`, with `scales=` where they take it. They may
            make other networks too, see `elslightning.measurement.comparing.compare`.
        calibration, comparison: settings.
        seed: noises are drawn from it on the CPU: the same on every device.
        scales: given, these are used and nothing is calibrated.
        heldout: images that are not in the machines' bank, for the calibration objective "heldout".
        keep: given, evaluations of the machines are kept there until it is cleared, and found again by a measurement
            that starts anew.
        shard_bank: where several processes measure, each keeps only its share of the machines' bank on its device.
    """

    machines: Mapping[str, MachineFactory]
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    comparison: ComparisonSettings = field(default_factory=ComparisonSettings)
    seed: int = 0
    scales: Mapping[str, ParameterTable] | None = None
    heldout: Split | None = None
    shard_bank: bool = False
    keep: Kept | None = None

    def __post_init__(self) -> None:
        if not self.machines:
            raise InputError("machines must name at least one machine")

    @property
    def _starts(self) -> Starts:
        return Starts(self.seed)

    @property
    def factories(self) -> Factories:
        """The machines as they are made, and what is free in them."""
        return Factories(self.machines, self.calibration, self.keep)

    @property
    def calibrated(self) -> list[str]:
        """The machines that have something free which calibration finds: scales, or another parameter."""
        return self.factories.calibrated

    def check(self, network: Denoiser | None, images: Tensor, labels: Tensor | None, schedule: Schedule) -> None:
        """Finds out, before any long work, what calibration and comparison could stumble over.

        Raises:
            InputError: naming it.
        """
        if network is not None:
            labels = network.select_labels(labels)
        check_bank(images, labels, "the measurement")
        if network is not None:
            check_network(network, images, labels)
            for name in [name for name in self.machines if name not in self.calibrated]:
                peer = self.machines[name](images[:1], None if labels is None else labels[:1])
                check_peer(name, peer, network, images, labels)
        if self.scales is None and self.calibrated and self.calibration.objective == HELDOUT:
            self._heldout(images, labels, images.device)
        self.check_scales(network, tuple(images.shape[1:]), schedule)

    def check_scales(self, network: Denoiser | None, shape: tuple[int, ...], schedule: Schedule) -> None:
        """Finds out whether the machines can work with the patch sizes that they are to try, or were given.

        Args:
            network: what may limit the sizes to try.
            shape: (channel, height, width) of the images, which are not needed themselves: one of zeros stands for
                them.
            schedule: gives the noise levels that given scales must cover.

        Raises:
            InputError: naming every machine that cannot.
        """
        images = torch.zeros(1, *shape)
        schedule = self.comparison.schedule(schedule)
        counts = self.comparison.network_steps
        for steps in (self.comparison.steps, *(counts if isinstance(counts, Sequence) else [counts])):
            schedule.grid(steps)
        tried = self.scales is None and self.calibrated
        if tried:
            schedule.grid(self.calibration.steps)
        cap = self.calibration.cap(network) if tried else None
        problems: list[str] = []
        for name in self.calibrated:
            try:
                if self.scales is None:
                    candidates = candidates_of(self.factories.patch_sizes(name), self.factories.further(name), cap)
                    for setting in settings_to_check(candidates):
                        self.machines[name](images, None, **self.factories.arguments(name, setting))
                else:
                    table = self._scales_of(name, self.scales)
                    table.at(schedule.noise_levels(self.comparison.steps), next(iter(table.columns)))
                    self.machines[name](images, None, **self.factories.arguments(name, table))
            except InputError as error:
                problems += error.problems
        raise_for(*problems)

    def calibrate(
        self,
        network: Denoiser | None,
        images: Tensor,
        labels: Tensor | None,
        schedule: Schedule,
        progress: Progress = no_progress,
        processes: Processes = ALONE,
    ) -> Result:
        """Calibrates every machine that has scales, and measures the network's own receptive field beside them.

        Without parameters, `network` is a machine itself, and its receptive field is not measured. With the objective
        "heldout" it may be None; the machines are then conditional exactly when there are labels. See `run` for the
        other arguments.
        """
        settings, device, schedule = self.calibration, device_of(network, images), self.comparison.schedule(schedule)
        if not self.calibrated:
            return Result({}, {})
        find: Callable[..., Calibration]
        if network is not None:
            labels = network.select_labels(labels)
        if settings.objective == HELDOUT:
            clean, noise, classes = self._heldout(images, labels, device)
            find = partial(heldout, images=clean)
        elif network is not None:
            noise, classes = self._starts.draw(CALIBRATED, settings.num_samples, images, labels, device)
            find = partial(calibrate, self._remembered(network, device), objective=settings.objective)
        else:
            raise InputError(f"calibration.objective={settings.objective} needs a network")
        bank = Bank.of(images, labels, device, processes if self.shard_bank else ALONE)
        calibrations = {
            name: find(
                self.factories.build(name, bank, **self.factories.arguments(name, self.factories.first(name))),
                schedule,
                steps=settings.steps,
                patch_sizes=self.factories.patch_sizes(name),
                further=self.factories.further(name),
                noise=noise,
                labels=classes,
                statistic=settings.statistic,
                cap=self.calibration.cap(network),
                what=f"calibrating {name}",
                progress=progress,
                processes=processes,
            )
            for name in self.calibrated
        }
        gradients = None
        if network is not None and network.learned and settings.gradient_samples:
            noise, classes = self._starts.draw(CALIBRATED, settings.gradient_samples, images, labels, device)
            gradients = gradient_field(
                network,
                schedule,
                steps=settings.steps,
                noise=noise,
                labels=classes,
                progress=progress,
                processes=processes,
            )
        scales: dict[str, ParameterTable] = {name: found.scales for name, found in calibrations.items()}
        return Result(calibrations, scales, gradients=gradients)

    def run(
        self,
        network: Denoiser,
        images: Tensor,
        labels: Tensor | None,
        schedule: Schedule,
        progress: Progress = no_progress,
        processes: Processes = ALONE,
        *,
        checked: bool = False,
    ) -> Result:
        """Calibrates, unless scales were given, and compares.

        Args:
            network: the denoiser to explain.
            images: (N, channel, height, width), its training images, on any device.
            labels: (N,) int64 or None; used if the network is conditional.
            schedule: that of the network; gives the noise levels, unless `comparison.grid` names another.
            progress: told of every step.
            processes: who does this together; all call it with the same arguments and get the same result, that of
                one process alone.
            checked: whether `check` has let the same arguments pass already.

        Raises:
            InputError: see `check`. If one process fails, all raise.
        """
        if not checked:
            self.check(network, images, labels, schedule)
        schedule = self.comparison.schedule(schedule)
        if self.scales is None:
            result = self.calibrate(network, images, labels, schedule, progress, processes)
        else:
            result = Result({}, {name: self._scales_of(name, self.scales) for name in self.calibrated})
        labels, device = network.select_labels(labels), device_of(network, images)
        settings = self.comparison
        noise, classes = self.pairs(images, labels, device)
        comparison = compare(
            self._remembered(network, device),
            self.build(images, labels, result.scales, schedule, device, processes),
            schedule,
            steps=settings.steps,
            network_steps=settings.network_steps,
            noise=noise,
            labels=classes,
            skip=settings.skip,
            batch_size=settings.batch_size,
            bank=images,
            stepwise=settings.stepwise,
            handover=[after for after in settings.handover or () if after < settings.steps],
            progress=progress,
            processes=processes,
        )
        return replace(result, comparison=comparison)

    def pairs(
        self, images: Tensor, labels: Tensor | None, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Where every pair of the comparison starts, (pairs, channel, height, width) standard normal on `device`, and
        its class (pairs,) if there are `labels`; for training images (N, channel, height, width) and (N,)."""
        return self._starts.draw(COMPARED, self.comparison.num_pairs, images, labels, device or images.device)

    def build(
        self,
        images: Tensor,
        labels: Tensor | None,
        scales: Mapping[str, ParameterTable],
        schedule: Schedule,
        device: torch.device | None = None,
        processes: Processes = ALONE,
    ) -> dict[str, Denoiser]:
        """All machines as they are compared, over a bank or this process's share of it.

        Args:
            images, labels: (N, channel, height, width) and (N,), or None for unconditional machines.
            scales: by machine, for those that take them; with `compatibility` "official" they are shifted by a step.
            schedule: as of `run`.
            device: of the machines; None leaves the images where they are.
            processes: see `run`.

        Raises:
            InputError: for a machine without scales, and whatever the machines do not take.
        """
        if self.comparison.skip:
            levels = self.comparison.schedule(schedule).noise_levels(self.comparison.steps)
            scales = {name: table.late(levels) for name, table in scales.items()}
        bank = Bank.of(images, labels, device or images.device, processes if self.shard_bank else ALONE)
        options = {name: self.factories.arguments(name, self._scales_of(name, scales)) for name in self.calibrated}
        return {name: self.factories.build(name, bank, **options.get(name, {})) for name in self.machines}

    def _remembered(self, network: Denoiser, device: torch.device) -> Denoiser:
        """The network, remembering where it would not repeat itself: machines are asked about what it makes."""
        wanted = network.learned and not repeats(device)
        return RememberedNetwork(network, self.keep) if wanted and self.keep is not None else network

    def _scales_of(self, name: str, scales: Mapping[str, ParameterTable]) -> ParameterTable:
        if name in scales:
            return scales[name]
        raise InputError(f"there are no scales for the machine {name}; there are for {', '.join(scales) or 'none'}")

    def _heldout(
        self, images: Tensor, labels: Tensor | None, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Held-out images, their noise, and their classes if there are `labels`; see `heldout.draw`."""
        if self.heldout is None:
            raise InputError("calibration.objective=heldout needs held-out images")
        count = self.calibration.num_samples
        clean, classes = draw(self.heldout, count, self._starts.generator(HELD_OUT), images, labels)
        noise, _ = self._starts.draw(CALIBRATED, count, images, None, device)
        return clean.to(device), noise, None if classes is None else classes.to(device)
