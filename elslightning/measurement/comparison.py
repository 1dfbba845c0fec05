"""Comparison: what a network and the machines make of the same noise, pair by pair."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.sampling import sample
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.machines.registry import BASELINE
from elslightning.measurement.consistency import consistency
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes, all_or_none

MEASURES = ("pearson_r", "pearson_r2", "r2_score", "cosine", "mse")
NETWORK = "network"

_DRAWN = 2**20
"""Values that are resampled at once, in bootstraps."""

_Source = tuple[str, int]
"""Who made a sample, and in how many steps."""


def agreement(prediction: Images, truth: Images) -> dict[str, Float[Tensor, " batch"]]:
    """Five measures of agreement per pair, over all channels and pixels, in float64.

    `pearson_r` is what the paper's evaluation computes and its tables call r²; `pearson_r2` is its square;
    `r2_score` is the coefficient of determination with `truth` (the network) as truth; `cosine` does not
    subtract means; `mse` is the mean squared error. An image without variance predicts nothing and has no
    direction: its `pearson_r` is 0, and `r2_score` is 0 where the truth has none.

    Args:
        prediction, truth: (batch, channel, height, width).

    >>> import torch
    >>> a = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 2, 2)
    >>> {name: round(value.item(), 3) for name, value in agreement(2 * a, a).items()}
    {'pearson_r': 1.0, 'pearson_r2': 1.0, 'r2_score': -1.8, 'cosine': 1.0, 'mse': 3.5}
    """
    a, b = prediction.double().flatten(1).cpu(), truth.double().flatten(1).cpu()
    centred_a, centred_b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    r = cosine_similarity(centred_a, centred_b, dim=1)
    squared_error = (a - b).square()
    varies = b.amax(dim=1) > b.amin(dim=1)
    r2_score = torch.where(varies, 1 - squared_error.sum(dim=1) / centred_b.square().sum(dim=1), 0.0)
    values = (r, r.square(), r2_score, cosine_similarity(a, b, dim=1), squared_error.mean(dim=1))
    return dict(zip(MEASURES, values, strict=True))


def median_interval(
    values: Float[Tensor, " pairs"], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float, float]:
    """The median and its bootstrap percentile interval, as (median, low, high).

    The median of an even number of values is the mean of the middle two. Resamples are drawn one after the other, so
    many at once that memory does not depend on the number of values, which changes no number.
    """
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _DRAWN // len(values))
    medians = torch.cat(
        [_medians(values, min(at_once, resamples - n), generator) for n in range(0, resamples, at_once)]
    )
    tail = (1 - level) / 2
    return (
        float(values.quantile(0.5)),
        float(medians.quantile(tail)),
        float(medians.quantile(1 - tail)),
    )


def _medians(values: Float[Tensor, " pairs"], count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """The medians of so many resamples."""
    draws = torch.randint(len(values), (count, len(values)), generator=generator)
    return values[draws].quantile(0.5, dim=1)


@dataclass(frozen=True)
class Comparison:
    """A row per pair, machine and number of network steps, and the images behind them.

    Of a comparison that was read from files images may be missing; all but `samples` works without them.

    Attributes:
        rows: dictionaries with the columns of `comparison.csv`.
        network: samples of the network by its number of steps, (pairs, channel, height, width) each.
        machines: samples of each machine, alike.
        labels: (pairs,) int64 or None.
        peers: samples of other networks that stood among the machines, by name and number of steps.
        consistency: dictionaries with the columns of `consistency.csv`: a row per machine, sample of its own or of
            the network, and number of steps that the sample took.
    """

    rows: list[dict[str, Any]]
    network: dict[int, Tensor]
    machines: dict[str, Tensor]
    labels: Tensor | None
    peers: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    consistency: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The machines, and after them the other networks."""
        return list(dict.fromkeys(row["machine"] for row in self.rows))

    @property
    def theories(self) -> list[str]:
        """The machines, without other networks."""
        return [name for name in self.names if name not in self.peers]

    @property
    def network_steps(self) -> list[int]:
        """The numbers of steps that the network was sampled with."""
        return list(dict.fromkeys(row["network_steps"] for row in self.rows))

    def samples(self, name: str, network_steps: int) -> Tensor:
        """What of a machine or another network is held against the network at a number of steps."""
        return self.peers[name][network_steps] if name in self.peers else self.machines[name]

    def values(self, machine: str, network_steps: int, measure: str = "pearson_r") -> Float[Tensor, " pairs"]:
        """One measure for all pairs, in their order, float64."""
        rows = [row for row in self.rows if (row["machine"], row["network_steps"]) == (machine, network_steps)]
        return torch.tensor([row[measure] for row in sorted(rows, key=lambda row: row["pair"])], dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        """Per machine and number of network steps: medians with intervals, and shares.

        `{"pairs", "steps", "machines": {machine: {network_steps: {measure: {"median", "low", "high"},
        "beats_is", "share_of_ceiling", "consistency", "network_consistency"}}}}`; the intervals are 95 % bootstrap
        intervals over pairs. What does not apply is None; so is `steps`, that of the machines, if there are none.

        - `beats_is`: the share of pairs with a greater `pearson_r` than the ideal score machine.
        - `share_of_ceiling`: see `share_of_ceiling`.
        - `consistency`, `network_consistency`: the median share of pixels of the machine's samples, and of the
          network's, that are consistent with the machine; see `elslightning.measurement.consistency`.
        """
        return copy.deepcopy(self._summary)

    @cached_property
    def _summary(self) -> dict[str, Any]:
        machines: dict[str, Any] = {}
        for machine in self.names:
            machines[machine] = {}
            for steps in self.network_steps:
                entry: dict[str, Any] = {}
                for measure in MEASURES:
                    median, low, high = median_interval(self.values(machine, steps, measure))
                    entry[measure] = {"median": median, "low": low, "high": high}
                entry["beats_is"] = self.share_beating_baseline(machine, steps)
                entry["share_of_ceiling"] = self.share_of_ceiling(machine, steps)
                entry["consistency"] = self.median_consistency(machine)
                entry["network_consistency"] = self.median_consistency(machine, steps)
                machines[machine][str(steps)] = entry
        pairs = len({row["pair"] for row in self.rows})
        taken = next((row["steps"] for row in self.rows if row["machine"] not in self.peers), None)
        return {"pairs": pairs, "steps": taken, "machines": machines}

    def share_beating_baseline(self, machine: str, network_steps: int) -> float | None:
        """The share of pairs on which a machine's Pearson r exceeds that of IS."""
        if machine == BASELINE or BASELINE not in self.theories:
            return None
        better = self.values(machine, network_steps) > self.values(BASELINE, network_steps)
        return float(better.double().mean())

    def share_of_ceiling(self, machine: str, network_steps: int) -> float | None:
        """A machine's median Pearson r, over that of the best other network: how much of what can be predicted at
        all it predicts. None for a network, and without one of a positive median."""
        ceiling = max((float(self.values(peer, network_steps).quantile(0.5)) for peer in self.peers), default=0.0)
        if machine in self.peers or ceiling <= 0:
            return None
        return float(self.values(machine, network_steps).quantile(0.5)) / ceiling

    def median_consistency(self, machine: str, network_steps: int | None = None) -> float | None:
        """The median over pairs of the share of pixels that are consistent with a machine: of its own samples, or of
        the network's at a number of steps. None for a network, which has no candidates."""
        rows = [row for row in self.consistency if row["machine"] == machine]
        if network_steps is None:
            rows = [row for row in rows if row["source"] == machine]
        else:
            rows = [row for row in rows if (row["source"], row["steps"]) == (NETWORK, network_steps)]
        shares = torch.tensor([row["consistency"] for row in rows], dtype=torch.float64)
        return float(shares.quantile(0.5)) if rows else None

    def table(self) -> str:
        """The summary as text: machine, network steps, median r with its interval, r², share beating IS, consistency,
        and the share of the ceiling if there is one."""
        titles = ["machine", "network steps", "median r", "95 % interval", "r²", "beats IS", "consistent", "of ceiling"]
        cells = [titles]
        for machine, by_steps in self.summary()["machines"].items():
            for steps, entry in by_steps.items():
                r, r2 = entry["pearson_r"], entry["pearson_r2"]
                numbers = [f"{r['median']:.3f}", f"{r['low']:.3f} … {r['high']:.3f}", f"{r2['median']:.3f}"]
                shares = [_percent(entry["beats_is"], 0), _percent(entry["consistency"], 1)]
                cells.append([machine, steps, *numbers, *shares, _percent(entry["share_of_ceiling"], 1)])
        columns = list(zip(*cells, strict=True))[: None if self.peers else -1]
        first, *others = [[cell.rjust(max(map(len, column)) + 2) for cell in column] for column in columns]
        first = [cell.strip().ljust(len(cell)) for cell in first]
        return "\n".join(map("".join, zip(first, *others, strict=True)))


def _percent(share: float | None, digits: int) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


@doorway(denoiser="network", schedule="schedule", images="noise")
def compare(
    network: Denoiser,
    machines: Mapping[str, Denoiser],
    schedule: Schedule,
    *,
    steps: int,
    network_steps: int | Sequence[int],
    noise: Images,
    labels: Labels | None = None,
    skip: int = 0,
    batch_size: int = 64,
    progress: Progress = no_progress,
    processes: Processes = ALONE,
) -> Comparison:
    """Samples network and machines from the same noise and measures how well they agree (Tables 1 and 2).

    How well a second network agrees, of another seed or architecture, shows how much there is to predict at all. It
    takes as many steps as the network it is held against.

    Args:
        network: the denoiser to explain.
        machines: predictors by name: machines, and other networks; "is" is the baseline the others are held against.
        schedule: gives the noise levels.
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's; several numbers give a comparison with each.
        noise: (pairs, channel, height, width), where every process starts.
        labels: (pairs,) int64, handed to whoever is conditional.
        skip: so many of the first times are left out of the machines' process, see `ddim`.
        batch_size: pairs sampled at once.
        progress: told of every step.
        processes: each takes a share of the pairs, and all get the same result.

    Raises:
        InputError: if there is no machine or no pair, and for whatever network or machines do not take.
    """
    if not machines or not len(noise):
        raise InputError("a comparison needs at least one machine and one pair")
    counts = [network_steps] if isinstance(network_steps, int) else list(dict.fromkeys(network_steps))
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    start, classes = processes.share(noise), None if labels is None else processes.share(labels)
    theory = {name: machine for name, machine in machines.items() if not machine.learned}
    with all_or_none(processes.group):
        truths = {
            count: sample(network, start, schedule, count, classes, what=f"network, {count} steps", **options)
            for count in counts
        }
        predictions = {
            name: sample(machine, start, schedule, steps, classes, skip=skip, what=f"{name}, {steps} steps", **options)
            for name, machine in theory.items()
        }
        peers = {
            name: {
                count: sample(peer, start, schedule, count, classes, what=f"{name}, {count} steps", **options)
                for count in counts
            }
            for name, peer in machines.items()
            if peer.learned
        }
        shares = {
            (name, *source): found
            for name, machine in theory.items()
            for source, found in _consistencies(
                name,
                machine,
                {(name, steps): predictions[name]} | {(NETWORK, count): truth for count, truth in truths.items()},
                classes,
                progress,
            )
        }

    def whole(part: Tensor) -> Tensor:
        return processes.join(part, len(noise))

    truths = {count: whole(part) for count, part in truths.items()}
    predictions = {name: whole(part) for name, part in predictions.items()}
    peers = {name: {count: whole(part) for count, part in parts.items()} for name, parts in peers.items()}
    comparison = Comparison([], truths, predictions, labels, peers)
    for name in (*predictions, *peers):
        for count, truth in truths.items():
            columns = {"machine": name, "steps": count if name in peers else steps, "network_steps": count}
            comparison.rows.extend(_rows(labels, columns, agreement(comparison.samples(name, count), truth)))
    for (name, source, taken), found in shares.items():
        columns = {"machine": name, "source": source, "steps": taken}
        comparison.consistency.extend(_rows(labels, columns, {"consistency": whole(found)}))
    return comparison


def _rows(
    labels: Labels | None, columns: Mapping[str, Any], measures: Mapping[str, Float[Tensor, " pairs"]]
) -> Iterator[dict[str, Any]]:
    """A row per pair: its number and label, `columns` that all share, and what was measured of it."""
    values = list(zip(*(measured.tolist() for measured in measures.values()), strict=True))
    classes = [None] * len(values) if labels is None else labels.tolist()
    for pair, (label, measured) in enumerate(zip(classes, values, strict=True)):
        yield {"pair": pair, "label": label, **columns, **dict(zip(measures, measured, strict=True))}


def _consistencies(
    name: str, machine: Denoiser, samples: Mapping[_Source, Images], labels: Labels | None, progress: Progress
) -> Iterator[tuple[_Source, Float[Tensor, " pairs"]]]:
    """The consistency with a machine of samples from several sources, one after the other."""
    done = 0
    with machine.reporting(lambda fraction: progress(f"{name}, consistency", done + fraction, len(samples))):
        for source, images in samples.items():
            yield source, consistency(images, machine, labels)
            done += 1
            progress(f"{name}, consistency", done, len(samples))
