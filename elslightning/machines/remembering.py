"""Machines that remember: what they were asked before, they do not work out again."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.machines.patches import PatchMachine
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part, digest

Keep: TypeAlias = Callable[[Sequence[Part], Callable[[], Tensor]], Tensor]
"""Returns what is made from some parts, by making it or from an earlier time: `elslightning.system.keeping.Kept`."""


class Remembering(Denoiser):
    """A machine whose posterior means are kept, and found again for the very same bank, images, noise levels, labels
    and patch sizes. It is the machine in all else.

    Args:
        machine: one with its whole bank: processes that share one have to meet, whatever one of them remembers.
        keep: where results are kept.

    Raises:
        InputError: for a machine that has a shard of a bank only.
    """

    def __init__(self, machine: ScoreMachine, keep: Keep) -> None:
        super().__init__()
        if machine.process_group is not None:
            raise InputError(f"{type(machine).__name__} shares its bank with other processes: it cannot be remembered")
        self.machine = machine
        self.keep = keep
        self.conditional = machine.conditional
        self.image_shape = machine.image_shape

    @property
    def replica(self) -> "Remembering | None":
        """The machine's replica, remembering."""
        other = self.machine.replica
        return None if other is None else remembering(other, self.keep)

    @property
    def doubtful(self) -> float | None:
        """As `ScoreMachine.doubtful`, of what was not remembered."""
        return self.machine.doubtful

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean of the machine, worked out or remembered; arguments and errors are the machine's."""
        self.machine.check_inputs(x_t, alpha_bar, labels)
        sizes = self.machine._setting_at(alpha_bar)[:, None]
        return self._remembered(x_t, alpha_bar, labels, sizes, lambda: self.machine(x_t, alpha_bar, labels))

    def _remembered(
        self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, sizes: Tensor, ask: Callable[[], Tensor]
    ) -> Tensor:
        """What the machine is asked for patch sizes (batch, size) or settings (batch, setting, free)."""

        def work_out() -> Tensor:
            with self.machine.reporting(self.on_progress):
                return ask()

        return self.keep((x_t, alpha_bar, labels, sizes, self._identity), work_out)

    def sweep_settings(
        self,
        x_t: Images,
        alpha_bar: AlphaBar,
        settings: Sequence[Mapping[str, float]],
        labels: Labels | None = None,
    ) -> Tensor:
        """As `ScoreMachine.sweep_settings`, worked out or remembered."""
        self.machine.check_inputs(x_t, alpha_bar, labels)
        values = torch.stack([machine._setting_at(alpha_bar) for machine in self.machine._machines(settings)], dim=1)
        return self._remembered(
            x_t, alpha_bar, labels, values, lambda: self.machine.sweep_settings(x_t, alpha_bar, settings, labels)
        )

    @cached_property
    def _identity(self) -> str:
        """What tells this machine from all others, but for what is free in it."""
        machine = self.machine
        return digest((type(machine).__qualname__, machine.images, machine.labels, *machine._options()))


class RememberingPatches(Remembering):
    """The same of a machine that sees patches: it remembers its sweeps, too."""

    machine: PatchMachine

    @property
    def scales(self) -> int | ParameterTable:
        """The machine's patch sizes."""
        return self.machine.scales

    @torch.no_grad()
    def sweep(
        self, x_t: Images, alpha_bar: AlphaBar, patch_sizes: Sequence[int], labels: Labels | None = None
    ) -> Tensor:
        """As `PatchMachine.sweep`, worked out or remembered."""
        self.machine.check_inputs(x_t, alpha_bar, labels)
        if not isinstance(self.machine, PatchMachine):  # its sizes are all that is free, and of its own kind
            given = torch.tensor(list(patch_sizes), dtype=torch.int64).expand(len(x_t), -1)
            return self._remembered(
                x_t, alpha_bar, labels, given, lambda: self.machine.sweep(x_t, alpha_bar, patch_sizes, labels)
            )
        settings = [{PATCH_SIZE: size} for size in patch_sizes]
        sizes = torch.stack([machine._setting_at(alpha_bar) for machine in self.machine._machines(settings)], dim=1)
        return self._remembered(
            x_t, alpha_bar, labels, sizes, lambda: self.machine._evaluate(x_t, alpha_bar, labels, sizes)
        )


def remembering(machine: ScoreMachine, keep: Keep) -> Remembering:
    """The machine, remembering whatever it can be asked; errors as `Remembering`."""
    return RememberingPatches(machine, keep) if hasattr(machine, "sweep") else Remembering(machine, keep)
