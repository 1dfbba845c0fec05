"""Creation without training: samples in the manner of a bank of images, along the dial, and what is new about them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from elslightning.diffusion.sampling import sample
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Progress, no_progress
from elslightning.machines.canvas import Canvas
from elslightning.machines.dial import dialled, stretched, whole_window, widest
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.patches import PatchMachine
from elslightning.machines.registry import MACHINES, display_name
from elslightning.measurement.factories import Bank, Factories
from elslightning.measurement.novelty import Novelty, Reference
from elslightning.measurement.order import Order, order_parameter
from elslightning.measurement.table import ABSENT
from elslightning.system.errors import InputError

SHOWN = ("novelty", "memorised", "nearest_r", "patch_precision", "consistency", "fidelity", "diversity", "coverage")
"""Measures of the table that is printed."""
DIALLED = [name for name, machine in MACHINES.items() if issubclass(machine, PatchMachine) and machine.attributable]
"""Machines whose windows the dial sets: hard ones, so that every pixel has its source."""


@dataclass(frozen=True)
class Made:
    """Some samples, and what they are.

    Attributes:
        name: of the machine, or of a control.
        setting: of the dial, or the factor of the windows; None for a control.
        samples: (batch, channel, height, width).
        novelty: what is measured of them.
        scales: the windows that made them, if any.
        order: on the way to them, where that was measured.
        kind: "dial", "family" or "control".
    """

    name: str
    setting: float | None
    samples: Images
    novelty: Novelty
    scales: ParameterTable | None = None
    order: Order | None = None
    kind: str = "dial"

    @property
    def label(self) -> str:
        """How it is written in tables."""
        if self.setting is None:
            return self.name
        return f"{display_name(self.name)}{', ' if self.kind == 'dial' else ' ×'}{self.setting:g}"


@dataclass(frozen=True)
class Creation:
    """What was created.

    Attributes:
        source: the machine that the dial sets.
        steps: of its reverse process.
        images: (N, channel, height, width), the training images.
        dial: by setting, in the order asked for.
        family: other machines, and windows made larger or smaller, for the map.
        controls: training images, held-out images, shuffled patches, noise.
        scales: by machine, the windows that denoise held-out images best.
        label: of the class that the images are of, if they are of one alone.
        class_name: what it is called, if it has a name.
    """

    source: str
    steps: int
    images: Tensor
    dial: Sequence[Made]
    controls: Sequence[Made]
    family: Sequence[Made] = ()
    scales: Mapping[str, ParameterTable] = field(default_factory=dict)
    label: int | None = None
    class_name: str = ""

    @property
    def objective(self) -> float | None:
        """The mean novelty at the first setting of the dial."""
        return self.dial[0].novelty.summary()["novelty"]["mean"]

    @property
    def all(self) -> list[Made]:
        """Everything that was measured."""
        return [*self.dial, *self.family, *self.controls]

    def summary(self) -> dict[str, Any]:
        """The means and intervals of every measure, for a file."""
        measured = [
            {"kind": made.kind, "name": made.name, "setting": made.setting, "samples": len(made.samples)}
            | made.novelty.summary()
            for made in self.all
        ]
        return {
            "samples": len(self.dial[0].samples),
            "source": self.source,
            "steps": self.steps,
            "label": self.label,
            "class": self.class_name or None,
            "creativity": measured,
        }

    @property
    def of(self) -> str:
        """What they are in the manner of, in words: "images", or those of a class."""
        return "images" if self.label is None else f"images of class {named(self.label, self.class_name)}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per sample, for a CSV."""
        names = list(dict.fromkeys(name for made in self.all for row in made.novelty.rows() for name in row))
        for made in self.all:
            for row in made.novelty.rows():
                yield {"kind": made.kind, "name": made.name, "setting": made.setting} | {
                    name: row.get(name) for name in names
                }

    def text(self) -> str:
        """What a run prints: means, a row for each setting of the dial and each control."""
        summaries = {made.label: made.novelty.summary() for made in self.all}
        names = [name for name in SHOWN if any(name in each for each in summaries.values())]
        lines = [["", *(name.replace("_", " ") for name in names)]]
        for label, each in summaries.items():
            lines.append([label, *(f"{each[name]['mean']:.3f}" if name in each else ABSENT for name in names)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [
            "  ".join(
                [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in lines
        ]
        return "\n" + "\n".join(line.rstrip() for line in padded) + "\n"


@dataclass(frozen=True)
class Studio:
    """What creates: a bank of images, machines on it, and what samples are held against.

    Args:
        factories: the machines by name; the first is the one that the dial sets.
        images: (N, channel, height, width), on the device of the work.
        scales: by machine, their windows at the mark.
        schedule: gives the noise levels.
        steps: of the reverse process.
        canvas: (height, width) of the samples.
        reference: what they are held against.
        seed: of the noises, the same for all that is sampled.

    Raises:
        InputError: for a first machine that the dial cannot set, and a canvas smaller than the widest window.
    """

    factories: Factories
    images: Tensor
    scales: Mapping[str, ParameterTable]
    schedule: Schedule
    steps: int
    canvas: tuple[int, int]
    reference: Reference
    seed: int = 0

    @property
    def source(self) -> str:
        return next(iter(self.factories.factories))

    def machine(self, name: str, scales: ParameterTable | None) -> Any:
        """A machine with these windows; on a canvas of another size than the images, one that can paint it."""
        options = {} if scales is None else self.factories.arguments(name, scales)
        machine = self.factories.build(name, Bank(self.images, None, {}), **options)
        return Canvas(machine) if isinstance(machine, PatchMachine) else machine

    def turned(self, creativity: float) -> ParameterTable:
        """The windows of the first machine at a setting of the dial."""
        shape, mode = tuple(self.images.shape[2:]), MACHINES[self.source].padding_mode
        whole, most = whole_window(shape, mode), widest(shape, self.canvas, mode)
        return dialled(self.scales[self.source], creativity, whole=whole, most=most)

    def noise(self, count: int) -> Images:
        """Where `count` samples start."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn((count, self.images.shape[1], *self.canvas), generator=generator)
        return noise.to(self.images.device)

    def make(
        self,
        name: str,
        setting: float,
        scales: ParameterTable | None,
        count: int,
        progress: Progress,
        kind: str = "dial",
    ) -> Made:
        """Samples of a machine, measured."""
        machine = self.machine(name, scales)
        what = f"{display_name(name)}, {setting:g}"
        samples = sample(machine, self.noise(count), self.schedule, self.steps, what=what, progress=progress)
        return Made(name, setting, samples.cpu(), self.reference.measure(samples, progress=progress), scales, kind=kind)

    def create(
        self,
        creativity: Sequence[float],
        count: int,
        heldout: Tensor,
        windows: Sequence[float] = (),
        *,
        followed: int = 0,
        progress: Progress = no_progress,
    ) -> Creation:
        """Samples along the dial, those of all machines with their windows larger and smaller, and the controls.

        Args:
            creativity: settings of the dial, from 0 to 1.
            count: samples of each; of controls half as many, but 8 where there are.
            heldout: (M, channel, height, width), images that are not in the bank.
            windows: factors of the windows; a machine without windows is sampled once. None of them: no family.
            followed: of so many samples of each setting the order parameter is measured on the way.
            progress: told of every step.
        """
        dial = []
        for setting in creativity:
            made = self.make(self.source, setting, self.turned(setting), count, progress)
            if followed:
                canvas = self.machine(self.source, made.scales)
                order = order_parameter(canvas, self.noise(followed), self.schedule, self.steps, progress=progress)
                made = replace(made, order=order)
            dial.append(made)
        family = []
        for name in self.factories.factories if windows else ():
            table = self.scales.get(name)
            if table is None:
                family.append(self.make(name, 1.0, None, count, progress, "family"))
                continue
            circular = MACHINES[name].padding_mode == "circular"
            most = whole_window(tuple(self.images.shape[2:]), "circular") if circular else None
            family += [
                self.make(name, factor, stretched(table, factor, most), count, progress, "family") for factor in windows
            ]
        controls = [
            Made(name, None, images, self.reference.measure(images, progress=progress), kind="control")
            for name, images in self.reference.controls(heldout, max(8, count // 2)).items()
        ]
        scales = {name: self.scales[name] for name in self.factories.factories if name in self.scales}
        return Creation(self.source, self.steps, self.images.cpu(), dial, controls, family, scales)


def named(label: int, name: str) -> str:
    """The number of a class, and its name, if it has one that says more.

    >>> named(3, "cat"), named(3, "3"), named(3, "")
    ('3 (cat)', '3', '3')
    """
    return f"{label}" if name in ("", str(label)) else f"{label} ({name})"


def check_canvas(source: str, shape: Sequence[int], canvas: Sequence[int]) -> None:
    """Raises InputError unless a machine can paint a canvas (height, width) with images (height, width)."""
    if tuple(shape) == tuple(canvas):
        return
    machine = MACHINES[source]
    sides, asked = " x ".join(map(str, shape)), " x ".join(map(str, canvas))
    if not machine.pooled:
        raise InputError(f"{source} copies from the pixel's own place: its canvas is {sides}, not {asked}")
    window = widest(shape, canvas, machine.padding_mode)
    if min(canvas) < window:
        raise InputError(f"a canvas of {asked} is smaller than the window, {window} pixels with images of {sides}")
    if min(shape) < window:
        raise InputError(f"images of {sides} are too small for a canvas of {asked}: the window has {window} pixels")


def fitting_sizes(machines: Sequence[str], sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Of the patch sizes that calibration tries, those that all machines can use on images (height, width), and that
    see no more than the whole image does.

    >>> fitting_sizes(["bbels"], [3, 9, 17], (8, 8)), fitting_sizes(["bbels", "els"], [3, 9, 17], (8, 8))
    ([3, 9], [3])
    """
    most = min(whole_window(shape, MACHINES[name].padding_mode) for name in machines if name in MACHINES)
    return [size for size in sizes if size <= most] or list(sizes[:1])
