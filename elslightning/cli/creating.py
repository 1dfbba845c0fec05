"""What `elslightning create` checks, and does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from torch import Tensor

from elslightning.cli.chosen import find_device, find_scales
from elslightning.cli.classes import bank_of, check_class
from elslightning.cli.values import settings_of
from elslightning.data.request import Split
from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import MACHINES
from elslightning.measurement.creation import DIALLED, Creation, Studio, check_canvas, fitting_sizes
from elslightning.measurement.factories import Factories
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.names import HELDOUT
from elslightning.measurement.novelty import Reference
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map
from elslightning.report.page.gallery import map_points, write_gallery
from elslightning.runs.configuration import primitives
from elslightning.runs.layout import FIGURES
from elslightning.runs.writing import write
from elslightning.system.errors import InputError
from elslightning.system.progress import Bars

if TYPE_CHECKING:
    from elslightning.cli.preflight import Parts


def check_together(cfg: DictConfig, parts: Mapping[str, Any], side: int | None) -> None:
    """Raises InputError for what the sections ask of each other, as far as the size of the images is known."""
    first = next(iter(parts["machines"]))
    if first not in DIALLED:
        raise InputError(f"the first of machines is dialled, and must be one of {', '.join(DIALLED)}, not {first}")
    if cfg.label is not None:
        check_class(cfg.label, parts["data"])
    if side is None:
        return
    check_canvas(first, (side, side), (cfg.height or side, cfg.width or side))
    for measurement in _measurements(cfg, parts, (side, side)):
        measurement.check_scales(None, (parts["data"].channels, side, side), parts["schedule"])


def _measurements(
    cfg: DictConfig, parts: Mapping[str, Any], shape: tuple[int, int], heldout: Tensor | None = None
) -> list[Measurement]:
    """A calibration of every machine that is asked for, with the patch sizes that it can use on such images."""
    machines, settings = parts["machines"], parts["calibration"]
    count = settings.num_samples if heldout is None else min(settings.num_samples, len(heldout))
    return [
        Measurement(
            {name: machines[name]},
            replace(
                settings,
                patch_sizes=fitting_sizes([name], list(settings.patch_sizes), shape),
                objective=HELDOUT,
                statistic=settings.statistic or "mean",
                num_samples=count,
            ),
            parts["comparison"],
            seed=cfg.seed,
            scales=find_scales(cfg),
            heldout=None if heldout is None else Split(heldout, None),
        )
        for name in (machines if cfg.windows else list(machines)[:1])
    ]


def create(cfg: DictConfig, parts: "Parts") -> Creation:
    """Samples along the dial, and what is new about them; the data are loaded.

    Raises:
        InputError: as `bank_of` and `Measurement.calibrate`, and for a canvas that the machine cannot paint.
    """
    bank = bank_of(parts.data, cfg.label, cfg.max_images)
    images = bank.images.to(find_device(cfg.device))
    shape = (int(images.shape[2]), int(images.shape[3]))
    canvas = (cfg.height or shape[0], cfg.width or shape[1])
    source = next(iter(parts.machines))
    check_canvas(source, shape, canvas)
    measurements = _measurements(cfg, vars(parts), shape, bank.heldout)
    for measurement in measurements:
        measurement.check(None, images, None, parts.schedule)
    scales = dict(find_scales(cfg) or {})
    if not scales:
        for measurement in measurements:
            scales |= measurement.calibrate(None, images, None, parts.schedule, Bars()).scales
    machines = {name: parts.machines[name] for measurement in measurements for name in measurement.machines}
    circular = MACHINES[source].padding_mode == "circular"
    studio = Studio(
        Factories(machines, parts.calibration),
        images,
        scales,
        parts.schedule,
        cfg.steps,
        canvas,
        Reference(bank.known.images, bank.known.labels, label=bank.label, circular=circular, seed=cfg.seed),
        seed=cfg.seed,
    )
    created = studio.create(
        [float(value) for value in settings_of(primitives(cfg, ["creativity"])["creativity"])],
        cfg.num_samples,
        bank.heldout,
        [float(value) for value in cfg.windows],
        followed=min(cfg.followed, cfg.num_samples),
        progress=Bars(),
    )
    return replace(created, label=bank.label, class_name=bank.class_name)


def write_all(created: Creation, schedule: Schedule, directory: Path) -> None:
    """The files of a creation: measures, samples, pictures, gallery and map."""
    write(created, directory)
    write_gallery(created, schedule, directory, directory.name)
    figures.save(creativity_map(map_points(created)), directory / FIGURES / "creativity.png")
