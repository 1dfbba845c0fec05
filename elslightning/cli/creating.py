"""What `elslightning create` checks, and does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from elslightning.cli.chosen import find_device, find_scales
from elslightning.data import ImageDataModule, Split
from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import MACHINES
from elslightning.measurement.creation import DIALLED, Creation, Studio, check_canvas, fitting_sizes
from elslightning.measurement.heldout import HELDOUT
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.novelty import Reference
from elslightning.measurement.settings import CalibrationSettings
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map
from elslightning.report.page.gallery import map_points, write_gallery
from elslightning.runs.configuration import primitives
from elslightning.runs.layout import FIGURES
from elslightning.runs.writing import write
from elslightning.system.checks import whole
from elslightning.system.errors import InputError, note
from elslightning.system.progress import Bars

if TYPE_CHECKING:
    from elslightning.cli.preflight import Parts


def settings_of(creativity: Any) -> list[Any]:
    """The settings of the dial, one or several."""
    return list(creativity) if isinstance(creativity, list | tuple) else [creativity]


def value_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of `create` outside of the sections."""
    asked = settings_of(config["creativity"])
    found = [] if asked else ["creativity must be a number between 0 and 1, or a list of such"]
    found += [
        f"creativity must lie between 0 (recall) and 1 (texture), not {value!r}"
        for value in asked
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
    ]
    for key in ("height", "width"):
        if config[key] is not None:
            found += whole(key, config[key], 1)
    if config["max_images"] is not None:
        found += whole("max_images", config["max_images"], 2)
    found += whole("followed", config["followed"], 0)
    windows = config["windows"]
    if not isinstance(windows, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100 for value in windows
    ):
        found.append(f"windows must be positive factors, such as [0.5,1,2], not {windows!r}")
    machines = list(config.get("machines") or {})
    if machines and machines[0] not in DIALLED:
        found.append(f"the first of machines is dialled, and must be one of {', '.join(DIALLED)}, not {machines[0]}")
    return found


def check_together(cfg: DictConfig, parts: Mapping[str, Any], side: int | None) -> None:
    """Raises InputError for what the sections ask of each other, as far as the size of the images is known."""
    if side is None:
        return
    shape = (side, side)
    machines = list(parts["machines"])
    check_canvas(machines[0], shape, (cfg.height or side, cfg.width or side))
    calibration = _calibration(parts["calibration"], machines, shape)
    measurement = Measurement(parts["machines"], calibration, parts["comparison"], scales=find_scales(cfg))
    measurement.check_scales(None, (parts["data"].channels, *shape), parts["schedule"])


def _calibration(settings: CalibrationSettings, machines: list[str], shape: tuple[int, ...]) -> CalibrationSettings:
    """The calibration on held-out images of this size."""
    sizes = fitting_sizes(machines, list(settings.patch_sizes), shape)
    return replace(settings, patch_sizes=sizes, objective=HELDOUT, statistic=settings.statistic or "mean")


def create(cfg: DictConfig, parts: "Parts") -> Creation:
    """Samples along the dial, and what is new about them; the data are loaded.

    Raises:
        InputError: for a canvas that the machine cannot paint, and as `Measurement.calibrate`.
    """
    data, device = parts.data, find_device(cfg.device)
    images = _bank(data, cfg.max_images).to(device)
    shape = (int(images.shape[2]), int(images.shape[3]))
    canvas = (cfg.height or shape[0], cfg.width or shape[1])
    machines = list(parts.machines)
    check_canvas(machines[0], shape, canvas)
    heldout = data.val_images
    scales = find_scales(cfg)
    measurement = Measurement(
        parts.machines if cfg.windows else {machines[0]: parts.machines[machines[0]]},
        replace(
            _calibration(parts.calibration, machines, shape),
            num_samples=min(parts.calibration.num_samples, len(heldout)),
        ),
        parts.comparison,
        seed=cfg.seed,
        scales=scales,
        heldout=Split(heldout, None),
    )
    measurement.check(None, images, None, parts.schedule)
    found = _scales(measurement, images, parts.schedule) if scales is None else scales
    labels = None if data.train_labels is None else data.train_labels[: len(images)]
    circular = MACHINES[machines[0]].padding_mode == "circular"
    reference = Reference(images, labels, circular=circular, seed=cfg.seed)
    studio = Studio(measurement.factories, images, found, parts.schedule, cfg.steps, canvas, reference, seed=cfg.seed)
    return studio.create(
        [float(value) for value in settings_of(primitives(cfg, ["creativity"])["creativity"])],
        cfg.num_samples,
        heldout,
        [float(value) for value in cfg.windows],
        followed=min(cfg.followed, cfg.num_samples),
        progress=Bars(),
    )


def _scales(measurement: Measurement, images: torch.Tensor, schedule: Schedule) -> dict[str, ParameterTable]:
    """The windows that denoise held-out images best."""
    return measurement.calibrate(None, images, None, schedule, Bars()).scales


def _bank(data: ImageDataModule, most: int | None) -> torch.Tensor:
    """The images to create from."""
    images = data.train_images
    if len(images) < 2:
        raise InputError(f"elslightning create needs at least 2 training images, not {len(images)}")
    if most is not None and len(images) > most:
        note(f"created from the first {most} of {len(images)} images (max_images)")
        return images[:most]
    return images


def write_all(created: Creation, schedule: Schedule, directory: Path) -> None:
    """The files of a creation: measures, samples, pictures, gallery and map."""
    write(created, directory)
    write_gallery(created, schedule, directory, directory.name)
    figures.save(creativity_map(map_points(created)), directory / FIGURES / "creativity.png")
