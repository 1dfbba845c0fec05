"""Comparison: what a network and the machines make of the same noise, pair by pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.sampling import sample
from elslightning.schedule import CosineSchedule
from elslightning.shapes import Images, Labels, Progress, no_progress

MEASURES = ("pearson_r", "pearson_r2", "r2_score", "cosine", "mse")
BASELINE = "is"


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

    The median of an even number of values is the mean of the middle two.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(values), (resamples, len(values)), generator=generator)
    medians = values[draws].quantile(0.5, dim=1)
    tail = (1 - level) / 2
    return (
        float(values.quantile(0.5)),
        float(medians.quantile(tail)),
        float(medians.quantile(1 - tail)),
    )


@dataclass(frozen=True)
class Comparison:
    """A row per pair, machine and number of network steps, and the images behind them.

    Attributes:
        rows: dictionaries with the columns of `comparison.csv`.
        network: samples of the network by its number of steps, (pairs, channel, height, width) each.
        machines: samples of each machine, alike.
        labels: (pairs,) int64 or None.
    """

    rows: list[dict[str, Any]]
    network: dict[int, Tensor]
    machines: dict[str, Tensor]
    labels: Tensor | None

    def values(self, machine: str, network_steps: int, measure: str = "pearson_r") -> Float[Tensor, " pairs"]:
        """One measure for all pairs, in their order, float64."""
        rows = (row for row in self.rows if row["machine"] == machine and row["network_steps"] == network_steps)
        return torch.tensor([row[measure] for row in rows], dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        """Per machine and number of network steps: medians with intervals, and the share that beats IS.

        `{"pairs", "steps", "machines": {machine: {network_steps: {measure: {"median", "low", "high"},
        "beats_is"}}}}`; the intervals are 95 % bootstrap intervals over pairs; `beats_is` is the share of pairs
        with a greater `pearson_r` than the ideal score machine, None for itself or where it is absent.
        """
        machines: dict[str, Any] = {}
        for machine in self.machines:
            machines[machine] = {}
            for steps in self.network:
                entry: dict[str, Any] = {}
                for measure in MEASURES:
                    median, low, high = median_interval(self.values(machine, steps, measure))
                    entry[measure] = {"median": median, "low": low, "high": high}
                entry["beats_is"] = self.share_beating_baseline(machine, steps)
                machines[machine][str(steps)] = entry
        first = next(iter(self.machines.values()))
        return {"pairs": len(first), "steps": self.rows[0]["steps"], "machines": machines}

    def share_beating_baseline(self, machine: str, network_steps: int) -> float | None:
        """The share of pairs on which a machine's Pearson r exceeds that of IS."""
        if machine == BASELINE or BASELINE not in self.machines:
            return None
        better = self.values(machine, network_steps) > self.values(BASELINE, network_steps)
        return float(better.double().mean())

    def table(self) -> str:
        """The summary as text: machine, network steps, median r with its interval, r², share beating IS."""
        summary = self.summary()["machines"]
        lines = [f"{'machine':<9}{'network steps':>14}{'median r':>10}{'95 % interval':>18}{'r²':>8}{'beats IS':>10}"]
        for machine, by_steps in summary.items():
            for steps, entry in by_steps.items():
                r, share = entry["pearson_r"], entry["beats_is"]
                interval = f"{r['low']:.3f} … {r['high']:.3f}"
                lines.append(
                    f"{machine:<9}{steps:>14}{r['median']:>10.3f}{interval:>18}"
                    f"{entry['pearson_r2']['median']:>8.3f}{'–' if share is None else f'{share:.0%}':>10}"
                )
        return "\n".join(lines)


def compare(
    network: Denoiser,
    machines: Mapping[str, Denoiser],
    schedule: CosineSchedule,
    *,
    steps: int,
    network_steps: int | Sequence[int],
    noise: Images,
    labels: Labels | None = None,
    batch_size: int = 64,
    progress: Progress = no_progress,
) -> Comparison:
    """Samples network and machines from the same noise and measures how well they agree (Tables 1 and 2).

    Args:
        network: the denoiser to explain.
        machines: predictors by name, usually machines; "is" is the baseline the others are held against.
        schedule: gives the noise levels.
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's; several numbers give a comparison with each.
        noise: (pairs, channel, height, width), where every process starts.
        labels: (pairs,) int64, handed to whoever is conditional.
        batch_size: pairs sampled at once.
        progress: told of every step.

    Raises:
        InputError: if there is no machine or no pair, and for whatever network or machines do not take.
    """
    if not machines or not len(noise):
        raise InputError("a comparison needs at least one machine and one pair")
    counts = [network_steps] if isinstance(network_steps, int) else list(dict.fromkeys(network_steps))
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    truths = {
        count: sample(network, noise, schedule, count, labels, what=f"network, {count} steps", **options)
        for count in counts
    }
    predictions = {
        name: sample(machine, noise, schedule, steps, labels, what=f"{name}, {steps} steps", **options)
        for name, machine in machines.items()
    }
    classes = [None] * len(noise) if labels is None else labels.tolist()
    rows: list[dict[str, Any]] = []
    for name, prediction in predictions.items():
        for count, truth in truths.items():
            measures = {key: value.tolist() for key, value in agreement(prediction, truth).items()}
            rows.extend(
                {"pair": pair, "label": label, "machine": name, "steps": steps, "network_steps": count}
                | {key: values[pair] for key, values in measures.items()}
                for pair, label in enumerate(classes)
            )
    return Comparison(rows, truths, predictions, labels)
