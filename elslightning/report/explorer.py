"""What the mosaic explorer shows: for some pairs, the way from noise to image and the sources of every pixel."""

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elslightning.attribution import Attribution, attribute
from elslightning.comparison import agreement
from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.figures import display_name
from elslightning.report.images import as_bytes
from elslightning.report.rebuild import Experiment
from elslightning.report.run import Run
from elslightning.sampling import Trajectory, ddim
from elslightning.shapes import Progress, no_progress

TOP = 5
"""Sources named for every pixel of the sample; at the steps before, one."""
MAP_BYTES, BANK_BYTES = 1_600_000, 1_400_000
"""Uncompressed bytes of what is stored per pair, and of the training images: together below 5 MB as text even where
nothing can be compressed."""
MOST_STEPS = 20
FEWEST_PAIRS = 3
SAME = 0.98
"""Pearson r between a sample and the same sample computed again, below which they are not the same: other hardware
rounds otherwise, and other data gives something else entirely."""


@dataclass(frozen=True)
class Explorer:
    """The explorer's data.

    Attributes:
        pairs: which pairs it shows, best first.
        meta: what goes into the page as JSON.
        blob: arrays, compressed, as base64 text; `meta["arrays"]` says where each lies.
        attributions: what painted the samples: the machine at the last step of its own process.
        alpha_bar: (steps,) noise levels of the machine's process.
        own, shared: (steps, pairs) Pearson r of the machine's x0 with the network's, each on its own path, and both at
            the network's state; None without a network or where their steps differ.
        coverage: the share of pixels whose first source is stored as an image.
    """

    pairs: list[int]
    meta: dict[str, Any]
    blob: str
    attributions: Attribution
    alpha_bar: Tensor
    own: Tensor | None
    shared: Tensor | None
    coverage: float

    @property
    def json(self) -> str:
        """`meta` as JSON that may stand inside a script element, whatever the strings in it."""
        text = json.dumps(self.meta, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class Plan:
    """How much of a run is explored: the number of pairs, the positions of the steps shown, and of those attributed."""

    pairs: int
    shown: list[int]
    attributed: list[int]


def middle(count: int) -> int:
    """The position of the median among `count` values in order; of the middle two, the first."""
    return (count - 1) // 2


def ranks(total: int, count: int) -> list[int]:
    """`count` positions among `total` pairs in order: the first, the median, the last, and evenly spread between.

    >>> ranks(101, 5), ranks(3, 9), ranks(10, 1)
    ([0, 25, 50, 75, 100], [0, 1, 2], [4])
    """
    if count >= total:
        return list(range(total))
    if count < 3:
        return sorted([middle(total), 0][:count])
    before = (count + 1) // 2
    first = np.linspace(0, middle(total), before).round()
    second = np.linspace(middle(total), total - 1, count - before + 1).round()
    return sorted({int(position) for position in (*first, *second)})


def plan(
    total: int, count: int, steps: int, shape: Sequence[int], candidates: int, work: float
) -> Plan:
    """What can be explored within bounds of file size and time, the same on every machine.

    Args:
        total: number of pairs of the run.
        count: number of pairs wanted.
        steps: of the machine's process.
        shape: (channel, height, width) of an image.
        candidates: number of training patches or images that a pixel is made of, at most.
        work: candidates that may be weighed in all, over pixels, pairs and steps.
    """
    channels, height, width = shape
    area = height * width
    shown = _spread(steps, MOST_STEPS)
    pairs = min(count, total, max(FEWEST_PAIRS, int(work / (area * candidates))))
    known = max(1, min(len(shown), int(work / (area * candidates * pairs))))

    def size() -> int:
        return pairs * area * (3 * channels * len(shown) + 7 * known + 6 * TOP)

    while size() > MAP_BYTES:
        if known > 4:
            known -= 1
        elif pairs > FEWEST_PAIRS:
            pairs -= 1
        elif len(shown) > known:
            shown = _spread(steps, len(shown) - 1)
        elif known > 1:
            known -= 1
        else:
            break
    return Plan(pairs, shown, [shown[position] for position in _spread(len(shown), known)])


def _spread(total: int, count: int) -> list[int]:
    """At most `count` positions among `total`, evenly, the last among them."""
    if count >= total:
        return list(range(total))
    return sorted({int(position) for position in np.linspace(total - 1, 0, count, endpoint=count > 1).round()})


def explore(
    run: Run, experiment: Experiment, *, pairs: int = 9, work: float = 4e10, progress: Progress = no_progress
) -> Explorer:
    """Walks some pairs of a run from noise to image again, and attributes every pixel to training patches.

    Args:
        run: a run with a comparison.
        experiment: what it compared.
        pairs: number of pairs to explore, at most; fewer if the file would grow too large.
        work: candidates that may be weighed in all: it bounds the time.
        progress: told of every step.

    Raises:
        InputError: if the samples on disk are not what the machine makes.
    """
    name, steps, reference = run.theory, run.steps, run.reference_steps
    assert name is not None
    assert steps is not None
    assert reference is not None
    machine = experiment.machines[name]
    r = run.values(name, reference)
    if len(r) != len(experiment.noise):
        raise InputError(f"the run has {len(r)} pairs, and its configuration says {len(experiment.noise)}")
    order = np.argsort(-r, kind="stable")
    outline = plan(
        len(r), pairs, steps - experiment.skip, experiment.bank.shape[1:], _candidates(experiment, machine), work
    )
    chosen = ranks(len(r), outline.pairs)
    indices = torch.from_numpy(order[chosen].copy())
    noise = experiment.noise[indices]
    labels = None if experiment.labels is None else experiment.labels[indices]
    theory = _walk(machine, noise, experiment, steps, labels, experiment.skip, f"{display_name(name)}, again", progress)
    _check_same(theory.samples, run.images(name, reference), indices, f"the samples of {name}")
    network = None
    if experiment.network is not None:
        network = _walk(experiment.network, noise, experiment, reference, labels, 0, "network, again", progress)
        _check_same(network.samples, run.network_images(reference), indices, "the samples of the network")
    own, shared = _agreement(machine, experiment, theory, network, labels)
    known: dict[int, Attribution] = {}
    for done, position in enumerate(reversed(outline.attributed)):
        last = position == outline.shown[-1]
        level = theory.alpha_bar[position].expand(len(noise))
        classes = machine.select_labels(labels)
        known[position] = attribute(machine, theory.x_t[position], level, classes, top=TOP if last else 1)
        progress("attribution", done + 1, len(outline.attributed))
    final = known[outline.shown[-1]]
    kept, coverage = _kept(final, list(known.values()), math.prod(experiment.bank.shape[1:]))
    finals = run.network_images(reference)
    arrays = {
        "theory": as_bytes(theory.x0[outline.shown].transpose(0, 1)),
        "noisy": as_bytes(theory.x_t[outline.shown].transpose(0, 1)),
        "network": _network_images(experiment, theory, network, finals, indices, outline.shown),
        "bank": as_bytes(experiment.bank[torch.from_numpy(kept)]),
        "kept": kept.astype(np.uint32),
        **_sources({position: known[position] for position in outline.attributed}, final),
    }
    entropy_max = max(math.log(2), *(float(found.entropy.max()) for found in known.values()))
    times = experiment.schedule.time(theory.alpha_bar[outline.shown])
    marks = {0: "best", middle(len(r)): "median", len(r) - 1: "worst"}
    meta = {
        "machine": display_name(name),
        "padding": str(getattr(machine, "padding_mode", "zeros")),
        "networkSteps": reference,
        "walked": network is not None,
        "bankSize": len(experiment.bank),
        "channels": experiment.bank.shape[1],
        "height": experiment.bank.shape[2],
        "width": experiment.bank.shape[3],
        "top": TOP,
        "entropyMax": entropy_max,
        "steps": [
            {
                "time": round(float(t), 4),
                "patch": int(machine.patch_size_at(theory.alpha_bar[position][None])[0]),  # type: ignore[operator]
                "slot": outline.attributed.index(position) if position in outline.attributed else -1,
            }
            for t, position in zip(times, outline.shown, strict=True)
        ],
        "pairs": [
            {
                "pair": int(order[rank]),
                "rank": rank + 1,
                "of": len(r),
                "r": round(float(r[order[rank]]), 4),
                "label": None if labels is None else int(labels[place]),
                "mark": marks.get(rank) if len(r) > 2 else None,
            }
            for place, rank in enumerate(chosen)
        ],
        "keptLabels": None
        if experiment.bank_labels is None
        else experiment.bank_labels[torch.from_numpy(kept)].tolist(),
    }
    arrays["entropy"] = _entropies([known[position] for position in outline.attributed], entropy_max)
    blob, meta["arrays"] = pack(arrays)
    return Explorer(
        pairs=indices.tolist(),
        meta=meta,
        blob=blob,
        attributions=final,
        alpha_bar=theory.alpha_bar[:-1],
        own=own,
        shared=shared,
        coverage=coverage,
    )


def _candidates(experiment: Experiment, machine: Denoiser) -> int:
    """How many candidates a pixel has, at most."""
    count = len(experiment.bank)
    if machine.conditional and experiment.bank_labels is not None:
        count = int(experiment.bank_labels.bincount().max())
    return count * (math.prod(experiment.bank.shape[2:]) if getattr(machine, "pooled", False) else 1)


def _walk(
    denoiser: Denoiser,
    noise: Tensor,
    experiment: Experiment,
    steps: int,
    labels: Tensor | None,
    skip: int,
    what: str,
    progress: Progress,
) -> Trajectory:
    def tell(_: str, done: float, total: float) -> None:
        progress(what, done, total)

    return ddim(denoiser, noise, experiment.schedule, steps, labels, skip=skip, progress=tell)


def _check_same(again: Tensor, before: np.ndarray | None, indices: Tensor, what: str) -> None:
    if before is None:
        return
    if before.shape[1:] != tuple(again.shape[1:]) or len(before) <= int(indices.max()):
        raise InputError(f"{what} on disk have the shape {before.shape}, which is not what the run would make now")
    r = agreement(again, torch.from_numpy(before)[indices])["pearson_r"]
    if float(r.min()) < SAME:
        raise InputError(
            f"{what} cannot be made again: made anew from the run's files they agree with those on disk only to "
            f"r = {float(r.min()):.3f}, so the data or the checkpoint must have changed"
        )


def _agreement(
    machine: Denoiser, experiment: Experiment, theory: Trajectory, network: Trajectory | None, labels: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Agreement per step, on paths of their own and at the same states."""
    if network is None or len(network.x0) != len(theory.x0):
        return None, None
    own = torch.stack([agreement(a, b)["pearson_r"] for a, b in zip(theory.x0, network.x0, strict=True)])
    classes = machine.select_labels(labels)
    shared = [
        agreement(machine(x_t, alpha_bar.expand(len(x_t)), classes), x0)["pearson_r"]
        for x_t, alpha_bar, x0 in zip(network.x_t[:-1], network.alpha_bar[:-1], network.x0, strict=True)
    ]
    return own, torch.stack(shared)


def _network_images(
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
        return as_bytes(network.x0[nearest].transpose(0, 1))
    if finals is None:
        return as_bytes(theory.x0[:0].transpose(0, 1))
    return as_bytes(torch.from_numpy(finals)[indices][:, None])


def _kept(final: Attribution, known: Sequence[Attribution], image_bytes: int) -> tuple[np.ndarray, float]:
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


def _sources(known: Mapping[int, Attribution], final: Attribution) -> dict[str, np.ndarray]:
    """The first source of every pixel, (pairs, step, height, width), and the first few of the last step's."""
    found: dict[str, np.ndarray] = {}
    for name, kind in (("image", np.int32), ("row", np.uint16), ("column", np.uint16)):
        first = torch.stack([getattr(step, name)[..., 0] for step in known.values()], dim=1)
        found[name] = first.numpy().astype(kind)
        found[f"top_{name}"] = getattr(final, name).clamp(min=-1 if name == "image" else 0).numpy().astype(kind)
    weights = torch.stack([step.weight[..., 0] for step in known.values()], dim=1)
    found["weight"], found["top_weight"] = weights.half().numpy(), final.weight.half().numpy()
    narrow: Callable[[np.ndarray], np.ndarray] = lambda array: array.astype(np.uint8) if array.max() < 256 else array
    return {name: narrow(array) if array.dtype == np.uint16 else array for name, array in found.items()}


def _entropies(known: Sequence[Attribution], most: float) -> np.ndarray:
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
