"""How busy the machine is with the work of others while something is measured."""

import time

import psutil
import torch

SHORT = 0.2
"""Seconds that say nothing, by clocks that tick a hundred times in one."""

LEAST = 0.05
"""A share of the cores below which nothing is read out of the clocks."""


class Load:
    """Measures, as a context, how much longer things take on the CPU because others work there as well."""

    def __init__(self) -> None:
        self.slowdown = 1.0
        """At least 1: time now in proportion to that on a machine with nothing else to do."""

    def __enter__(self) -> "Load":
        self._start = (time.perf_counter(), *_spent())
        return self

    def __exit__(self, *raised: object) -> None:
        wall, own, all_busy = (
            now - then for now, then in zip((time.perf_counter(), *_spent()), self._start, strict=True)
        )
        self.slowdown = slowdown(wall, own, all_busy, torch.get_num_threads(), psutil.cpu_count() or 1)


def slowdown(wall: float, own: float, busy: float, threads: int, cores: int) -> float:
    """Time in proportion to that on a machine with nothing else to do.

    A process is not faster than with all its threads at work; and others keep from it no more than what they have.

    Args:
        wall: seconds that went by.
        own: seconds on a core that this process had.
        busy: the same of all processes together.
        threads: of this process.
        cores: of the machine.

    >>> slowdown(10, 10, 20, threads=2, cores=2)  # another process has the second core
    2.0
    >>> slowdown(10, 10, 20, threads=1, cores=2)  # which this one has no use for
    1.0
    >>> slowdown(10, 12, 12, threads=2, cores=2)  # nobody else is there
    1.0
    >>> slowdown(10, 5, 20, threads=2, cores=2)  # and here three others
    4.0
    """
    if wall < SHORT:
        return 1.0
    others = max(0.0, busy - own) / (wall * cores)
    return 1 / min(1.0, max(own / (wall * threads), 1 - others, LEAST))


def _spent() -> tuple[float, float]:
    """Seconds on a core so far, of this process and of all."""
    mine, all_of_them = psutil.Process().cpu_times(), psutil.cpu_times()
    idle = all_of_them.idle + getattr(all_of_them, "iowait", 0.0)
    # What runs in virtual machines is counted with users already.
    guests = getattr(all_of_them, "guest", 0.0) + getattr(all_of_them, "guest_nice", 0.0)
    return mine.user + mine.system, sum(all_of_them) - idle - guests
