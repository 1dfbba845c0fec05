"""The table of a comparison, as a run prints it."""

from collections.abc import Mapping
from typing import Any

ABSENT = "–"
TITLES = ("machine", "network steps", "median r", "95 % interval", "r²", "R²", "beyond trivial")
REPLICAS = ("corrected r", "r of replicas", "error of samples")
SHARES = ("beats IS", "consistent", "memorised", "of ceiling")


def summary_table(summary: Mapping[str, Any], reference: str) -> str:
    """A summary as text, a line per machine and number of network steps; columns that say nothing are left out.

    Machine, network steps, median r with its interval, r², R², what is beyond the trivial, the median difference of r
    to the machine `reference` with its interval, share beating IS, consistency, share memorised, share of the ceiling;
    of machines that draw their candidates r without their error, r between replicas, and the error of their samples.

    Args:
        summary: see `elslightning.measurement.comparison.Comparison.summary`.
        reference: see there.
    """
    cells = [[*TITLES, f"r - r of {reference}", *SHARES, *REPLICAS]]
    for machine, by_steps in summary["machines"].items():
        for steps, entry in by_steps.items():
            r = entry["pearson_r"]
            medians = [median(entry.get(measure)) for measure in ("pearson_r2", "r2_score", "beyond_trivial")]
            shares = [
                share(entry["beats_is"]),
                share(entry["consistency"], 1),
                share(entry.get("memorised")),
                share(entry["share_of_ceiling"], 1),
            ]
            again = [median(entry.get(measure)) for measure in ("corrected_r", "replica_r", "sample_error")]
            first = [machine, steps, median(r), f"{r['low']:.3f} … {r['high']:.3f}"]
            cells.append([*first, *medians, difference(entry.get("difference")), *shares, *again])
    columns = [column for column in zip(*cells, strict=True) if any(cell != ABSENT for cell in column[1:])]
    first, *others = [[cell.rjust(max(map(len, column)) + 2) for cell in column] for column in columns]
    first = [cell.strip().ljust(len(cell)) for cell in first]
    return "\n".join(map("".join, zip(first, *others, strict=True)))


def median(entry: Mapping[str, float] | None) -> str:
    """A median of a summary, or a dash."""
    return ABSENT if entry is None else f"{entry['median']:.3f}"


def difference(entry: Mapping[str, float] | None) -> str:
    """A median difference with its interval, or a dash."""
    return ABSENT if entry is None else f"{entry['median']:+.3f} ({entry['low']:+.3f} … {entry['high']:+.3f})"


def share(value: float | None, digits: int = 0) -> str:
    """A share in percent, or a dash."""
    return ABSENT if value is None else f"{value:.{digits}%}"
