"""Drawing: machines whose pixels share candidates look at all of them, or at as many as an asked accuracy takes."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.machines.estimating import (
    AUTO,
    AUTO_ACCURACY,
    AUTO_FROM,
    AUTO_FROM_GPU,
    EXACT,
    Estimate,
    Estimator,
    Form,
    check_accuracy,
    estimate,
)
from elslightning.machines.leading import Leading, lead
from elslightning.machines.patches import PatchMachine
from elslightning.machines.shelf import check_folder
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part


@dataclass
class Pixels:
    """How many pixels a machine and its copies have evaluated, and how many of them are doubtful."""

    evaluated: int = 0
    doubted: int = 0


class Drawing(PatchMachine):
    """A patch machine that pools locations, exact or with an error bar.

    Whoever is one calls `_draw` when it is made.
    """

    pooled: ClassVar[bool] = True

    def _draw(self, accuracy: float | str, seed: int, index: str | Path | None) -> None:
        """Takes an accuracy, a seed and a folder of indices, as in `PooledPatchMachine`.

        Raises:
            InputError: for an accuracy that is none, or one with a shard of a bank; and for what can be no folder.
        """
        check_accuracy(accuracy)
        check_folder(index)
        if accuracy != EXACT and self.process_group is not None:
            raise InputError(
                f"{type(self).__name__} draws from a whole bank: accuracy={accuracy} does not go with a shard of one"
            )
        self.accuracy = accuracy
        self.seed = seed
        self.index = index
        self._estimators: list[Estimator] = []
        self._pixels = Pixels()

    def _form(self, setting: Sequence[float]) -> Form:
        """How it looks and paints with a setting of all that is free in it."""
        size = int(setting[0])
        return Form(size, np.ones(size, np.float32), np.ones(1, np.float32))

    @property
    def replica(self) -> "Drawing | None":
        """The same machine with other draws, on the same index; None where it is exact."""
        if self._standard_error() is None:
            return None
        self._estimator()
        other = copy.copy(self)
        other.seed = self.seed + 1
        return other

    @property
    def doubtful(self) -> float | None:
        return self._pixels.doubted / self._pixels.evaluated if self._pixels.evaluated else None

    @torch.no_grad()
    def estimate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Estimate:
        """The posterior mean, and how well it is known; arguments and errors as in `forward`."""
        self.check_inputs(x_t, alpha_bar, labels)
        return self._estimate(x_t, alpha_bar, labels, self._setting_at(alpha_bar))

    @property
    def draws(self) -> bool:
        """Whether candidates are drawn; otherwise all are looked at."""
        return self._standard_error() is not None

    @torch.no_grad()
    def leading(
        self,
        x_t: Images,
        alpha_bar: AlphaBar,
        label: int | None,
        patch_size: int,
        top: int,
        preferred: Int64[Tensor, " batch"],
        tick: Callable[[float], None],
    ) -> Leading:
        """The leading candidates of every pixel, from draws: see `elslightning.machines.leading`, of which these are
        the arguments.

        Raises:
            InputError: for a label with no training image.
        """
        self.bank(label)
        form = self._form([patch_size])
        return lead(self, self._estimator(), x_t, alpha_bar, label, form, self.seed, top, preferred, tick)

    def _standard_error(self) -> float | None:
        """The standard error that is enough; None where all candidates are looked at."""
        if self.accuracy == AUTO:
            candidates = self.images.shape[0] * self.images.shape[2] * self.images.shape[3]
            if self.labels is not None and len(self.labels):
                candidates = candidates * int(self.labels.bincount().max()) // len(self.labels)
            least = AUTO_FROM if self.images.device.type == "cpu" else AUTO_FROM_GPU
            return AUTO_ACCURACY if candidates >= least else None
        return None if isinstance(self.accuracy, str) else self.accuracy

    def _estimator(self) -> Estimator:
        """The indices of the bank, which copies of the machine share, and machines after it."""
        if not self._estimators:
            self._estimators.append(Estimator.of(self, self.index))
        return self._estimators[0]

    def _options(self) -> Sequence[Part]:
        asked = self._standard_error()
        drawn = () if asked is None else (f"accuracy {asked} seed {self.seed}",)
        return (*super()._options(), *drawn)

    def _evaluate_same(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Tensor:
        if self._standard_error() is None:
            return super()._evaluate_same(x_t, alpha_bar, labels, patch_sizes)
        settings = patch_sizes.unbind(1)
        return torch.stack([self._estimate(x_t, alpha_bar, labels, some).x0 for some in settings])

    def _estimate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, settings: Tensor) -> Estimate:
        """Images of the same label and setting together: they share their candidates."""
        asked = self._standard_error()
        pixels = x_t.new_zeros((len(x_t), *x_t.shape[2:]), dtype=torch.bool)
        result = Estimate(torch.empty_like(x_t), torch.zeros_like(x_t), pixels)
        if asked is None:
            return result._replace(x0=self._evaluate(x_t, alpha_bar, labels, settings[:, None])[0])
        estimator = self._estimator()
        classes = torch.zeros(len(x_t), dtype=torch.int64) if labels is None else labels.cpu()
        settings = settings.cpu().reshape(len(x_t), -1)
        keys = torch.cat([classes[:, None].to(settings), settings], dim=1)
        done = 0
        for key in keys.unique(dim=0):
            rows = (keys == key).all(dim=1).nonzero()[:, 0]
            label = None if labels is None else int(key[0])
            form = self._form(key[1:].tolist())
            self.bank(label)  # refuses a label without training images

            def tick(fraction: float, start: int = done, count: int = len(rows)) -> None:
                self.on_progress((start + fraction * count) / len(x_t))

            where = rows.to(x_t.device)
            found = estimate(self, estimator, x_t[where], alpha_bar.cpu()[rows], label, form, asked, self.seed, tick)
            for into, part in zip(result, found, strict=True):
                into[where] = part
            done += len(rows)
        self._pixels.evaluated += result.doubtful.numel()
        self._pixels.doubted += int(result.doubtful.sum())
        return result
