"""Attribution and mosaics of images of another size than the training images."""

from dataclasses import replace

import torch
from torch import Tensor

from elslightning.diffusion.schedule import add_noise
from elslightning.diffusion.shapes import AlphaBar, Images, Labels, Progress, no_progress
from elslightning.machines.canvas import Canvas
from elslightning.measurement.attribution import Attribution, attribute, check_attributable
from elslightning.measurement.consistency import NOISE_POWER
from elslightning.measurement.mosaic import Mosaic, mosaic


def attribute_canvas(
    canvas: Canvas,
    x_t: Images,
    alpha_bar: AlphaBar,
    labels: Labels | None = None,
    *,
    top: int = 1,
    patch_size: int | None = None,
    progress: Progress = no_progress,
) -> Attribution:
    """As `attribution.attribute`, on a canvas; all images at one patch size.

    Raises:
        InputError: as there, and as `Canvas.cut`.
    """
    check_attributable(canvas.machine, top)
    size = int(canvas.machine.patch_size_at(alpha_bar)[0]) if patch_size is None else patch_size
    cut = canvas.cut(x_t.shape[2], x_t.shape[3], size)
    levels = alpha_bar.repeat(len(cut))
    classes = None if labels is None else labels.repeat(len(cut))
    found = attribute(canvas.machine, cut.apart(x_t), levels, classes, top=top, patch_size=size, progress=progress)

    def whole(parts: Tensor) -> Tensor:
        return cut.together(parts.movedim(-1, 1)).movedim(1, -1)

    sources = {name: whole(getattr(found, name)) for name in ("image", "row", "column", "weight")}
    batch = len(x_t)
    return replace(
        found,
        alpha_bar=found.alpha_bar[:batch],
        patch_size=found.patch_size[:batch],
        entropy=cut.together(found.entropy),
        **sources,
    )


def canvas_mosaic(canvas: Canvas, samples: Images, *, progress: Progress = no_progress) -> Mosaic:
    """The mosaic of samples in the limit of no noise, as in `mosaic.memorisation`, on a canvas.

    Raises:
        InputError: as `attribute_canvas`.
    """
    machine = canvas.machine
    alpha_bar = torch.full((len(samples),), 1 - NOISE_POWER, dtype=torch.float64)
    x_t = add_noise(samples, torch.zeros_like(samples), alpha_bar)
    found = attribute_canvas(canvas, x_t, alpha_bar, progress=progress)
    sides = tuple(machine.images.shape[2:]) if machine.padding_mode == "circular" else None
    return mosaic(found, circular=sides is not None, around=sides)
