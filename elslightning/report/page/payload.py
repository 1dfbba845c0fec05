"""The arrays of the mosaic explorer, and how they travel inside a page."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.pixels import to_bytes
from elslightning.diffusion.sampling import Trajectory
from elslightning.measurement.attribution import Attribution
from elslightning.runs.experiment import Experiment

BANK_BYTES = 1_400_000
"""Uncompressed bytes of the training images stored, see `elslightning.report.page.plan.MAP_BYTES`."""


def network_images(
    experiment: Experiment,
    theory: Trajectory,
    network: Trajectory | None,
    finals: np.ndarray | None,
    indices: Tensor,
    shown: Sequence[int],
) -> np.ndarray:
    """What the network makes of its own state at the nearest time, (pairs, steps, …); its samples, without one."""
    if network is not None:
        times = experiment.schedule.time(network.alpha_bar[:-1])
        wanted = experiment.schedule.time(theory.alpha_bar[list(shown)])
        nearest = (times[None, :] - wanted[:, None]).abs().argmin(dim=1)
        nearest[-1] = len(network.x0) - 1  # the sample itself
        return to_bytes(network.x0[nearest].transpose(0, 1))
    if finals is None:
        return to_bytes(theory.x0[:0].transpose(0, 1))
    return to_bytes(torch.from_numpy(finals)[indices][:, None])


def kept_images(final: Attribution, known: Sequence[Attribution], image_bytes: int) -> tuple[np.ndarray, float]:
    """The training images to store, by index, and the share of pixels whose first source is among them: first the
    first sources, by the number of pixels they paint, then the others."""
    chosen: dict[int, None] = {}
    sources: list[Tensor] = [final.image[..., 0], final.image, *(found.image[..., 0] for found in known)]
    for images in sources:
        values, counts = images[images >= 0].unique(return_counts=True)
        chosen |= dict.fromkeys(values[counts.argsort(descending=True, stable=True)].tolist())
    kept = np.array(sorted(list(chosen)[: max(1, BANK_BYTES // image_bytes)]), dtype=np.int64)
    first = final.image[..., 0].numpy()
    return kept, float(np.isin(first, kept).mean())


def source_arrays(known: Mapping[int, Attribution], final: Attribution) -> dict[str, np.ndarray]:
    """The first source of every pixel, (pairs, step, height, width), and the first few of the last step's."""
    found: dict[str, np.ndarray] = {}
    for name, kind in (("image", np.int32), ("row", np.uint16), ("column", np.uint16)):
        first = torch.stack([getattr(step, name)[..., 0] for step in known.values()], dim=1)
        found[name] = first.numpy().astype(kind)
        found[f"top_{name}"] = getattr(final, name).clamp(min=-1 if name == "image" else 0).numpy().astype(kind)
    weights = torch.stack([step.weight[..., 0] for step in known.values()], dim=1)
    found["weight"], found["top_weight"] = weights.half().numpy(), final.weight.half().numpy()
    return {
        name: array.astype(np.uint8) if array.dtype == np.uint16 and array.max() < 256 else array
        for name, array in found.items()
    }


def entropy_bytes(known: Sequence[Attribution], most: float) -> np.ndarray:
    """Entropies (pairs, step, height, width) as bytes, 255 for `most` nats."""
    entropy = torch.stack([found.entropy for found in known], dim=1).numpy()
    return (entropy * (255 / most)).round().clip(0, 255).astype(np.uint8)


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Arrays as one compressed text, and where each lies in what it unpacks to.

    Bytes of equal weight lie together, which compresses better; a browser puts them back.
    """
    parts, places, offset = [], {}, 0
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        part = little.view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()
        places[name] = {"type": array.dtype.name, "shape": list(array.shape), "offset": offset, "bytes": len(part)}
        parts.append(part)
        offset += len(part)
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode(), places
