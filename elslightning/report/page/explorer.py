"""What the mosaic explorer shows: for some pairs, the way from noise to image and the sources of every pixel."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.pixels import to_bytes
from elslightning.diffusion.sampling import Trajectory, ddim
from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.registry import display_name
from elslightning.measurement.agreement import agreement
from elslightning.measurement.attribution import Attribution, attribute
from elslightning.report.classes import called, names_of
from elslightning.report.page.payload import entropy_bytes, kept_images, network_images, pack, source_arrays
from elslightning.report.page.plan import TOP, candidate_count, middle, plan, ranks
from elslightning.runs.experiment import Experiment
from elslightning.runs.run import Run
from elslightning.system.errors import InputError

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
            the network's state; None without a network or where their steps differ, `shared` also for large banks.
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
    def painted(self) -> str:
        """What a pixel is an average of."""
        whole = all(step["patch"] == 0 for step in self.meta["steps"])
        return "the same pixel of training images" if whole else "centres of training patches"

    @property
    def json(self) -> str:
        """`meta` as JSON that may stand inside a script element, whatever the strings in it."""
        text = json.dumps(self.meta, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def explore(
    run: Run, experiment: Experiment, *, pairs: int = 9, work: float = 6e10, progress: Progress = no_progress
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
        len(r), pairs, steps - experiment.skip, experiment.bank.shape[1:], candidate_count(experiment, machine), work
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
    own, shared = _agreement(machine, theory, network, labels, outline.shared)
    known: dict[int, Attribution] = {}
    classes = machine.select_labels(labels)
    for done, position in enumerate(reversed(outline.attributed)):
        last = position == outline.shown[-1]
        level = theory.alpha_bar[position].expand(len(noise))
        known[position] = attribute(machine, theory.x_t[position], level, classes, top=TOP if last else 1)
        progress("attribution", done + 1, len(outline.attributed))
    final = known[outline.shown[-1]]
    kept, coverage = kept_images(final, list(known.values()), math.prod(experiment.bank.shape[1:]))
    finals = run.network_images(reference)
    arrays = {
        "theory": to_bytes(theory.x0[outline.shown].transpose(0, 1)),
        "noisy": to_bytes(theory.x_t[outline.shown].transpose(0, 1)),
        "network": network_images(experiment, theory, network, finals, indices, outline.shown),
        "bank": to_bytes(experiment.bank[torch.from_numpy(kept)]),
        "kept": kept.astype(np.uint32),
        **source_arrays({position: known[position] for position in outline.attributed}, final),
    }
    bank_labels, names = experiment.bank_labels, names_of(run)
    images = [len(experiment.bank)] * len(noise)
    if classes is not None and bank_labels is not None:
        images = [int((bank_labels == label).sum()) for label in classes.cpu()]
    kept_labels: list[int] = [] if bank_labels is None else bank_labels[torch.from_numpy(kept)].tolist()
    entropy_max = max(math.log(2), *(float(found.entropy.max()) for found in known.values()))
    times = experiment.schedule.time(theory.alpha_bar[outline.shown])
    marks = {0: "best", middle(len(r)): "median", len(r) - 1: "worst"}
    meta = {
        "machine": display_name(name),
        "padding": str(getattr(machine, "padding_mode", "zeros")),
        "networkSteps": reference,
        "walked": network is not None,
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
                "images": images[place],
            }
            for place, rank in enumerate(chosen)
        ],
        "keptLabels": kept_labels or None,
        "classes": [called(names, label) for label in range(1 + max(kept_labels, default=-1))],
    }
    arrays["entropy"] = entropy_bytes([known[position] for position in outline.attributed], entropy_max)
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
    machine: Denoiser, theory: Trajectory, network: Trajectory | None, labels: Tensor | None, both: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Agreement per step, on paths of their own and, if `both`, at the network's states."""
    if network is None or len(network.x0) != len(theory.x0):
        return None, None
    own = torch.stack([agreement(a, b)["pearson_r"] for a, b in zip(theory.x0, network.x0, strict=True)])
    if not both:
        return own, None
    classes = machine.select_labels(labels)
    shared = [
        agreement(machine(x_t, alpha_bar.expand(len(x_t)), classes), x0)["pearson_r"]
        for x_t, alpha_bar, x0 in zip(network.x_t[:-1], network.alpha_bar[:-1], network.x0, strict=True)
    ]
    return own, torch.stack(shared)
