"""Processes that share a measurement: each does a part of it, all get the whole, and all stop if one fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.system.errors import InputError

_TOLD = "_elslightning_told"


@dataclass(frozen=True)
class Processes:
    """The processes that share a measurement, as one of them sees it.

    Samples are divided so that every process has equally many, if need be some twice: all evaluate the same number of
    batches of the same sizes, and so can meet in every one of them. What is drawn for all samples and then shared does
    not depend on the number of processes.

    Args:
        rank: which one this is.
        count: how many there are.
        group: what they meet in; None for a process that is alone.
    """

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def world(cls) -> "Processes":
        """All processes that torch.distributed knows of; `ALONE` where it was not set up."""
        if not dist.is_available() or not dist.is_initialized():
            return ALONE
        return cls(dist.get_rank(), dist.get_world_size(), dist.group.WORLD)

    def share(self, whole: Tensor) -> Tensor:
        """This process's part of what there is for all samples, (samples, …); not empty, unless the whole is.

        >>> [Processes(rank, 2).share(torch.arange(5)).tolist() for rank in range(2)]
        [[0, 1, 2], [3, 4, 0]]
        """
        if self.count == 1 or not len(whole):
            return whole
        each = -(-len(whole) // self.count)
        positions = torch.arange(self.rank * each, (self.rank + 1) * each, device=whole.device)
        return whole[positions % len(whole)]

    def join(self, part: Tensor, samples: int, dim: int = 0) -> Tensor:
        """The whole of what every process found for its share of so many samples, along `dim`.

        Every process calls this, after they have agreed that none has failed; see `all_or_none`.
        """
        if self.group is None:
            return part
        return torch.cat(gather(part, self.group), dim).narrow(dim, 0, samples)


ALONE = Processes()


def gather(tensor: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """The tensors of all processes of a group, of one shape and dtype, in their order, on the device of `tensor`."""
    mine = tensor.to(_device(group)).contiguous()
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, mine, group=group)
    return [part.to(tensor.device) for part in found]


@contextmanager
def all_or_none(group: dist.ProcessGroup | None) -> Iterator[None]:
    """At the end of the block all processes of a group learn whether one has failed, and if so, all raise.

    Otherwise those that wait for what the failed one never sends would wait for ever. Blocks may lie in each other:
    whoever fails meets the others at the end of whichever block they come to next. Within a block, processes exchange
    tensors right after such a meeting only.

    Raises:
        InputError: in the others, if one failed with it, with its message.
        RuntimeError: in the others, if one failed with another exception. The one itself raises its own.
    """
    try:
        yield
    except Exception as error:
        if group is not None and not told(error):
            _tell(error, group)
        raise
    if group is not None:
        meet(group)


def meet(group: dist.ProcessGroup) -> None:
    """Raises if one of the processes has failed, as at the end of `all_or_none`; every one of the others calls this."""
    heard = _tell(None, group)
    failed = [(rank, report) for rank, report in enumerate(heard) if report is not None]
    if failed:
        rank, (is_input, message) = failed[0]
        error = InputError(message) if is_input else RuntimeError(f"process {rank} failed: {message}")
        setattr(error, _TOLD, True)
        raise error


def told(error: BaseException) -> bool:
    """Whether all processes know of an error."""
    return hasattr(error, _TOLD)


_Report: TypeAlias = tuple[bool, str] | None
"""Nothing, or whether an error is one of input, and its message."""


def _tell(error: Exception | None, group: dist.ProcessGroup) -> list[_Report]:
    """What every process reports."""
    failed = torch.tensor(int(error is not None), dtype=torch.int32, device=_device(group))
    dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
    reports: list[_Report] = [None] * dist.get_world_size(group)
    if failed:
        mine = None if error is None else (isinstance(error, InputError), f"{error}" or type(error).__name__)
        dist.all_gather_object(reports, mine, group=group)
    if error is not None:
        setattr(error, _TOLD, True)
    return reports


def _device(group: dist.ProcessGroup) -> torch.device:
    """Where tensors have to be for a group to exchange them."""
    if dist.get_backend(group) == dist.Backend.NCCL:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
