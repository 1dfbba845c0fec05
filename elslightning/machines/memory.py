"""How much memory a machine may use, and what fits into it."""

import psutil
import torch

from elslightning.system.errors import InputError


def default_budget(device: torch.device) -> int:
    """A quarter of the memory that is free on the device, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return psutil.virtual_memory().available // 4


def fitting(budget: int, each: int, most: int, what: str) -> int:
    """How many things of `each` bytes fit into `budget` bytes, `most` at the most.

    Raises:
        InputError: if not even one does.
    """
    if each > budget:
        raise InputError(
            f"the memory budget is too small: {what} takes {each:,} bytes, and {budget:,} of the budget are for it"
        )
    return min(budget // each, max(1, most))
