"""What verbs say before their work: how long it will take, and how much memory."""

from omegaconf import DictConfig
from torch import Tensor

from elslightning.cli.arguments import follows
from elslightning.cli.estimating import Estimate, estimate, fit_of
from elslightning.cli.preflight import Parts
from elslightning.data.module import ImageDataModule
from elslightning.measurement.measurement import Measurement
from elslightning.networks.adapter import NetworkDenoiser, ScheduledDenoiser
from elslightning.system.errors import note
from elslightning.system.progress import plan


def expect_training(
    cfg: DictConfig, parts: Parts, network: NetworkDenoiser, measurement: Measurement, done: int
) -> None:
    """Says what is expected of a training by one process that has an end, unless `estimate=false`.

    Args:
        cfg: its configuration.
        parts: what that names, the data loaded.
        network: not trained yet; it stays as it is, on the CPU.
        measurement: after it.
        done: steps of an earlier start.
    """
    plan({})
    training, data = parts.training, parts.data
    assert training is not None
    wanted = cfg.get("estimate", True) and not cfg.trainer.get("fast_dev_run", False)
    if not wanted or training.trainer.num_devices * training.trainer.num_nodes > 1:
        return
    images, every = data.train_images, measurement.comparison.every_n_epochs
    fit = fit_of(cfg.trainer, len(images), len(data.val_images), data.batch_size, done, every)
    if fit is not None:
        network.to(training.trainer.strategy.root_device)
        ahead = {"calibrated": cfg.compare, "compared": cfg.compare, "report": cfg.compare and cfg.get("report", True)}
        _say(estimate(measurement, network, images, network.select_labels(data.train_labels), fit=fit, **ahead))
        network.cpu()


def expect(
    cfg: DictConfig,
    measurement: Measurement,
    network: ScheduledDenoiser | None,
    data: ImageDataModule,
    labels: Tensor | None,
    *,
    compared: bool,
) -> None:
    """Says what is expected of a calibration or a comparison, unless `estimate=false`.

    Args:
        cfg: its configuration.
        measurement: that is ahead.
        network: on its device; None where none is asked.
        data: loaded.
        labels: of its training images, if there are any.
        compared: whether more than a calibration is ahead.
    """
    plan({})
    if cfg.get("estimate", True):
        labels = labels if network is None else network.select_labels(labels)
        options = {"compared": compared, "report": cfg.get("report", True)}
        _say(estimate(measurement, network, data.train_images, labels, **options))


def _say(expected: Estimate | None) -> None:
    if expected is not None and not follows():
        note(f"{expected}")
        plan(expected.seconds, expected.last)
