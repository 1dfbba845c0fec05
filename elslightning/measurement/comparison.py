"""Comparison: what a network and the machines make of the same noise, pair by pair."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from elslightning.machines.registry import BASELINE, the_theory
from elslightning.measurement.agreement import MEASURES, median_interval
from elslightning.measurement.names import NETWORK
from elslightning.measurement.novelty import MEMORISED
from elslightning.measurement.replicas import against
from elslightning.measurement.table import summary_table

FURTHER = ("beyond_trivial", "nearest_ratio", "network_nearest_ratio", "network_outside")
"""Columns of comparison.csv that runs of 0.1 do not have; None where a measure does not apply."""

Source = tuple[str, int]
"""Who made a sample, and in how many steps."""


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
        handover: dictionaries with the columns of `handover.csv`, see `elslightning.measurement.handover`.
        stepwise: dictionaries with the columns of `stepwise.csv`, see `elslightning.measurement.stepwise`.
        replicas: second samples, alike, of machines that draw their candidates: with other draws.
        doubtful: of these machines, the share of pixels whose error could not be trusted.
    """

    rows: list[dict[str, Any]]
    network: dict[int, Tensor]
    machines: dict[str, Tensor]
    labels: Tensor | None
    peers: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    consistency: list[dict[str, Any]] = field(default_factory=list)
    handover: list[dict[str, Any]] = field(default_factory=list)
    stepwise: list[dict[str, Any]] = field(default_factory=list)
    replicas: dict[str, Tensor] = field(default_factory=dict)
    doubtful: dict[str, float] = field(default_factory=dict)

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
        """One measure for all pairs, in their order, float64; empty where it does not apply."""
        rows = [row for row in self.rows if (row["machine"], row["network_steps"]) == (machine, network_steps)]
        found = [row[measure] for row in sorted(rows, key=lambda row: row["pair"]) if row.get(measure) is not None]
        return torch.tensor(found, dtype=torch.float64)

    @property
    def further(self) -> bool:
        """Whether the columns `FURTHER` were measured, which runs of 0.1 have not."""
        return bool(self.rows) and all(column in self.rows[0] for column in FURTHER)

    def summary(self) -> dict[str, Any]:
        """Per machine and number of network steps: medians with intervals, and shares.

        `{"pairs", "steps", "machines": {machine: {network_steps: {measure: {"median", "low", "high"},
        "beats_is", "share_of_ceiling", "consistency", "network_consistency", "beyond_trivial": {…},
        "beyond_share_of_ceiling", "difference": {…}, "memorised"}}}, "network": {network_steps: {"outside",
        "memorised"}}, "handover": {machine: {steps: {…}}}}`; the intervals are 95 % bootstrap intervals over pairs.
        What does not apply is None; so is `steps`, that of the machines, if there are none. Of rows without the columns
        `FURTHER` there is nothing from `beyond_trivial` on.

        - `beats_is`: the share of pairs with a greater `pearson_r` than the ideal score machine.
        - `share_of_ceiling`: see `share_of_ceiling`.
        - `consistency`, `network_consistency`: the median share of pixels of the machine's samples, and of the
          network's, that are consistent with the machine; see `elslightning.measurement.consistency`.
        - `beyond_trivial`: see `elslightning.measurement.trivial`; `beyond_share_of_ceiling` as `share_of_ceiling`.
        - `difference`: see `difference`.
        - `memorised`: the share of samples that are training images again; see `elslightning.measurement.novelty`.
        - `outside`: the share of the values of the network's samples that lie outside of [-1, 1], see there.
        - `sample_error`, `replica_r`, `corrected_r`, `doubtful`: of machines that draw their candidates only, see
          `elslightning.measurement.replicas`.
        - `handover`: the Pearson r of samples that the machine went on with after so many steps of the network.
        """
        return copy.deepcopy(self._summary)

    @cached_property
    def _summary(self) -> dict[str, Any]:
        machines: dict[str, Any] = {}
        for machine in self.names:
            machines[machine] = {}
            for steps in self.network_steps:
                entry: dict[str, Any] = {m: _median(self.values(machine, steps, m)) for m in MEASURES}
                entry["beats_is"] = self.share_beating_baseline(machine, steps)
                entry["share_of_ceiling"] = self.share_of_ceiling(machine, steps)
                entry["consistency"] = self.median_consistency(machine)
                entry["network_consistency"] = self.median_consistency(machine, steps)
                if self.further:
                    beyond = self.values(machine, steps, "beyond_trivial")
                    entry["beyond_trivial"] = _median(beyond) if len(beyond) else None
                    entry["beyond_share_of_ceiling"] = self.share_of_ceiling(machine, steps, "beyond_trivial")
                    apart = self.difference(machine, steps)
                    entry["difference"] = None if apart is None else _median(apart)
                    entry["memorised"] = self._memorised(machine, steps, "nearest_ratio")
                if machine in self.replicas:
                    pairs_r = self.values(machine, steps)
                    entry |= {
                        measure: _median(values)
                        for measure, values in against(self.machines[machine], self.replicas[machine], pairs_r).items()
                    }
                    entry["doubtful"] = self.doubtful.get(machine)
                machines[machine][str(steps)] = entry
        pairs = len({row["pair"] for row in self.rows})
        taken = next((row["steps"] for row in self.rows if row["machine"] not in self.peers), None)
        found = {"pairs": pairs, "steps": taken, "machines": machines}
        if self.further:
            found["network"] = {
                str(steps): {
                    "outside": float(self.values(self.names[0], steps, "network_outside").mean()),
                    "memorised": self._memorised(self.names[0], steps, "network_nearest_ratio"),
                }
                for steps in self.network_steps
            }
        if self.handover:
            found["handover"] = {
                name: {str(after): _median(r) for after, r in self.handed_over(name).items()}
                for name in dict.fromkeys(row["machine"] for row in self.handover)
            }
        return found

    @property
    def reference(self) -> str:
        """The one that differences are taken to: the theory, see `the_theory`, or the first network."""
        return the_theory(self.theories) or self.names[0]

    def difference(
        self, machine: str, network_steps: int, measure: str = "pearson_r"
    ) -> Float[Tensor, " pairs"] | None:
        """By how much a measure of a machine exceeds that of `reference`, pair by pair; None for that itself.

        They share their noises, and what makes a pair hard makes it hard for all: the median of the differences tells
        machines apart whose intervals overlap.
        """
        if machine == self.reference:
            return None
        return self.values(machine, network_steps, measure) - self.values(self.reference, network_steps, measure)

    def handed_over(self, machine: str) -> dict[int, Float[Tensor, " pairs"]]:
        """The Pearson r of every pair by the number of steps after which a machine has taken over from the network."""
        found: dict[int, list[float]] = {}
        for row in sorted(self.handover, key=lambda row: (row["after"], row["pair"])):
            if row["machine"] == machine:
                found.setdefault(row["after"], []).append(row["pearson_r"])
        return {after: torch.tensor(r, dtype=torch.float64) for after, r in found.items()}

    def along(self, machine: str, measure: str) -> tuple[Float[Tensor, " steps"], Float[Tensor, "steps pairs"]]:
        """A measure at the network's own states, see `elslightning.measurement.stepwise`: the noise levels in the order
        of sampling, and the values of all pairs at each; none of a machine that was not there."""
        rows = sorted(
            (row for row in self.stepwise if row["machine"] == machine), key=lambda row: (-row["step"], row["pair"])
        )
        levels = list(dict.fromkeys(row["alpha_bar"] for row in rows))
        values = torch.tensor([row[measure] for row in rows], dtype=torch.float64)
        return torch.tensor(levels, dtype=torch.float64), values.reshape(len(levels), len(rows) // max(1, len(levels)))

    def _memorised(self, machine: str, network_steps: int, column: str) -> float | None:
        ratios = self.values(machine, network_steps, column)
        return float((ratios < MEMORISED).double().mean()) if len(ratios) else None

    def share_beating_baseline(self, machine: str, network_steps: int) -> float | None:
        """The share of pairs on which a machine's Pearson r exceeds that of IS."""
        if machine == BASELINE or BASELINE not in self.theories:
            return None
        better = self.values(machine, network_steps) > self.values(BASELINE, network_steps)
        return float(better.double().mean())

    def share_of_ceiling(self, machine: str, network_steps: int, measure: str = "pearson_r") -> float | None:
        """A machine's median of a measure, over that of the best other network: how much of what can be predicted at
        all it predicts. None for a network, and without one of a positive median."""
        found = {peer: self.values(peer, network_steps, measure) for peer in self.peers}
        ceiling = max((float(values.quantile(0.5)) for values in found.values() if len(values)), default=0.0)
        if machine in self.peers or ceiling <= 0:
            return None
        return float(self.values(machine, network_steps, measure).quantile(0.5)) / ceiling

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
        """The summary as text, see `summary_table`."""
        return summary_table(self.summary(), self.reference)


def _median(values: Float[Tensor, " pairs"]) -> dict[str, float]:
    """The median and its interval, as a summary holds them."""
    return dict(zip(("median", "low", "high"), median_interval(values), strict=True))
