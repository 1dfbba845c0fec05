"""DenoisingTask: the only LightningModule; trains any Denoiser, and scores any machine."""

import functools
import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, OneCycleLR

from elslightning.data.module import Batch, ImageDataModule
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import convert, target, velocity
from elslightning.diffusion.schedule import LEAST_TIME, CosineSchedule, Schedule, add_noise
from elslightning.runs.checkpoints import CHECKPOINT_FORMAT
from elslightning.system.errors import InputError
from elslightning.training.layout import lay_as_loaded, lay_side_by_side

OptimizerFactory = Callable[[Any], Optimizer]
SchedulerFactory = Callable[[Optimizer, int | None], LRScheduler]


def exponential(optimizer: Optimizer, total_steps: int | None, *, gamma: float = 0.999965) -> LRScheduler:
    """The paper's learning rate: multiplied by `gamma` at every step, however many there are."""
    return ExponentialLR(optimizer, gamma)


def one_cycle(optimizer: Optimizer, total_steps: int | None, *, max_lr: float, **options: Any) -> LRScheduler:
    """One rise to `max_lr` and one fall over the whole training; `options` go to torch's `OneCycleLR`.

    Raises:
        InputError: if the training has no known end.
    """
    if total_steps is None:
        raise InputError("scheduler=one_cycle needs an end of the training: trainer.max_epochs or trainer.max_steps")
    return OneCycleLR(optimizer, max_lr, total_steps=total_steps, **options)


class DenoisingTask(pl.LightningModule):
    """Trains a denoiser: mean squared error of what it predicts (eps, v or x0) at times uniform in [0, 1].

    `val/loss` is the error of eps, whatever is predicted, on a fixed noise grid: validation image i is noised at the
    time `((i mod L) + 1/2) / L`, L = `val_levels`, with noise drawn from a generator seeded by its position alone.
    So it does not depend on the batch, the process or the epoch, and networks and machines can be compared by
    `trainer.validate(DenoisingTask(denoiser))`. `val/v_loss` is the error of v there: that of eps over alpha_bar,
    which weighs high noise as the posterior mean does.

    Args:
        denoiser: a network to train, or a machine to score.
        schedule: noise level at a time.
        optimizer: makes an optimizer from parameters; None takes the paper's, Adam at 1e-4.
        scheduler: makes a learning rate schedule from an optimizer and the number of steps of the whole
            training (None if it has no end), stepped once per optimizer step; None takes the paper's, a factor
            of 0.999965 per step.
        seed: of the training noise; each process and each step draws its own.
        val_levels: number of noise levels of the validation grid.
        config: primitives that describe the denoiser; saved with every checkpoint.

    Attributes:
        time_range: the least and the greatest time of the last batch of training; None before the first.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule | None = None,
        *,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        val_levels: int = 20,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = schedule or CosineSchedule()
        self._optimizer = optimizer or functools.partial(torch.optim.Adam, lr=1e-4)
        self._scheduler = scheduler or exponential
        self.seed = seed
        self.val_levels = val_levels
        self.config = config or {}
        self.time_range: tuple[float, float] | None = None

    def setup(self, stage: str) -> None:
        """Before the weights are handed to other processes."""
        if stage == "fit" and self.trainer.strategy.root_device.type == "cpu":
            lay_side_by_side(self.denoiser)

    def on_train_end(self) -> None:
        """The network computes the same now as when it is loaded."""
        lay_as_loaded(self.denoiser)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Seeded by (seed, process, step): processes differ, and a resumed run goes on as if never stopped.
        state = np.random.SeedSequence([self.seed, self.global_rank, self.global_step]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
        t = torch.rand(len(batch.images), generator=generator, dtype=torch.float64)
        # Below the last step of a reverse process, or, of EDM's, at it.
        t = t.clamp(min=LEAST_TIME)
        self.time_range = float(t.min()), float(t.max())
        noise = torch.randn(batch.images.shape, generator=generator).to(batch.images)
        alpha_bar, predicted, _ = self._predict(batch, t, noise)
        loss = mse_loss(predicted, target(self.denoiser.prediction, batch.images, noise, alpha_bar))
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(t), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        index = batch.indices.cpu()
        t = (index.double() % self.val_levels + 0.5) / self.val_levels
        noise = torch.stack([_fixed_noise(i, batch.images.shape[1:]) for i in index.tolist()]).to(batch.images)
        alpha_bar, predicted, x_t = self._predict(batch, t, noise)
        eps, v = (convert(x_t, predicted, alpha_bar, self.denoiser.prediction, wanted) for wanted in ("eps", "v"))
        loss = mse_loss(eps, noise)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(t), sync_dist=True)
        v_loss = mse_loss(v, velocity(batch.images, noise, alpha_bar))
        self.log("val/v_loss", v_loss, batch_size=len(t), sync_dist=True)
        return loss

    def _predict(self, batch: Batch, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha_bar at the times, what the denoiser predicts there, and the noisy images it saw."""
        alpha_bar = self.schedule.alpha_bar(t)  # float64, so it stays on the CPU
        x_t = add_noise(batch.images, noise, alpha_bar)
        return alpha_bar, self.denoiser.predict(x_t, alpha_bar, self.denoiser.select_labels(batch.labels)), x_t

    def configure_optimizers(self) -> Any:
        """The optimizer and its learning rate schedule, stepped every optimizer step.

        Raises:
            InputError: if the denoiser has nothing to train.
        """
        parameters = [p for p in self.denoiser.parameters() if p.requires_grad]
        if not parameters:
            raise InputError(
                f"{type(self.denoiser).__name__} has no parameters to train: use trainer.validate to score it"
            )
        optimizer = self._optimizer(parameters)
        steps = self.trainer.estimated_stepping_batches
        scheduler = self._scheduler(optimizer, None if math.isinf(steps) else int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the denoiser again; primitives only, so `weights_only=True` loads it;
        and the checksum of the images, if it is known."""
        data = getattr(self._trainer, "datamodule", None)
        known = {"data_sha256": data.checksum()} if isinstance(data, ImageDataModule) else {}
        checkpoint["elslightning"] = {"format": CHECKPOINT_FORMAT, "config": self.config, **known}


def _fixed_noise(index: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(index))
