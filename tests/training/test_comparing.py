"""ELSComparison: when it measures, what it logs and writes; and figures on their way to loggers."""

import csv
import json
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from measured import Plain, comparison, fit, real
from PIL import Image
from tiny import MEASUREMENT, cli, digits, network, train, trainer, undrawn
from torch.utils.data import DataLoader

from elslightning.data.module import ImageDataModule, TensorBank
from elslightning.data.sources import Split
from elslightning.machines import IdealScoreMachine, LocalScoreMachine
from elslightning.machines.scales import ScaleTable, load_scales
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.system.errors import InputError
from elslightning.training.loggers import log_figure
from elslightning.training.task import DenoisingTask

pytestmark = pytest.mark.usefixtures("no_layout")

MEDIAN = "val/bbels/pearson_r_median"
VALUES = (0.2, 0.9, 0.4, 0.3, 0.1, 0.05)


@dataclass(frozen=True)
class Reported(Result):
    """A result with one scalar."""

    value: float = 0.0

    def scalars(self):
        return {MEDIAN: self.value}


def reported(value: float) -> Reported:
    return Reported({}, {}, value=value)


@pytest.fixture
def no_pictures(monkeypatch):
    """Where a measurement is the matter, and not what is drawn of it."""
    undrawn(monkeypatch)


class Counted(Measurement):
    """A measurement that does nothing but remember how it was asked."""

    def __post_init__(self) -> None:
        self.training: list[bool] = []

    def check(self, network, images, labels, schedule):
        pass

    def run(self, network, *arguments, **options):
        self.training.append(network.training)
        return reported(VALUES[len(self.training) - 1])


def counted(every: int | None = None) -> Counted:
    return Counted({}, comparison=ComparisonSettings(every_n_epochs=every))


@pytest.mark.parametrize(
    ("every", "epochs", "times"), [(1, 3, 3), (2, 4, 2), (2, 5, 3), (3, 2, 1), (None, 3, 1)], ids=str
)
@pytest.mark.usefixtures("no_pictures")
def test_it_measures_every_n_epochs_and_once_more_at_the_end_if_that_was_not_measured(tmp_path, every, epochs, times):
    measurement = counted(every)
    fit(tmp_path, [comparison(measurement, tmp_path)], max_epochs=epochs)
    assert len(measurement.training) == times


def test_epochs_without_validation_are_measured_at_the_end(tmp_path):
    measurement = counted(every=1)
    fit(tmp_path, [comparison(measurement, tmp_path)], max_epochs=3, check_val_every_n_epoch=2)
    assert len(measurement.training) == 2


def test_it_does_not_measure_while_sanity_checking(tmp_path):
    measurement = counted(every=1)
    fit(tmp_path, [comparison(measurement, tmp_path)], num_sanity_val_steps=1)
    assert len(measurement.training) == 1


def test_it_does_not_measure_in_validation_alone(tmp_path):
    measurement = counted(every=1)
    trainer(tmp_path, callbacks=[comparison(measurement, tmp_path)]).validate(
        DenoisingTask(network()), digits(), verbose=False
    )
    assert measurement.training == []


@pytest.mark.usefixtures("no_pictures")
def test_a_second_fit_measures_again(tmp_path):
    measurement = counted()
    callback = comparison(measurement, tmp_path)
    fit(tmp_path, [callback])
    fit(tmp_path, [callback])
    assert len(measurement.training) == 2


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.usefixtures("no_pictures")
def test_it_measures_in_evaluation_mode_and_restores_training_mode(tmp_path, every):
    class Mode(Callback):
        def __init__(self):
            self.modes = []

        def on_train_batch_start(self, trainer, pl_module, *arguments):
            self.modes.append(pl_module.denoiser.training)

    measurement, mode = counted(every), Mode()
    task = DenoisingTask(network())
    trainer(tmp_path, max_epochs=2, callbacks=[comparison(measurement, tmp_path), mode]).fit(task, digits())
    assert not any(measurement.training)
    assert mode.modes == [True] * 4
    assert task.denoiser.training


def test_it_restores_training_mode_after_a_failure(tmp_path):
    class Failing(Counted):
        def run(self, *arguments, **options):
            raise InputError("no such pair")

    task = DenoisingTask(network())
    fitter = trainer(tmp_path, callbacks=[comparison(Failing({}), tmp_path)])
    with pytest.raises(InputError, match="no such pair"):
        fitter.fit(task, digits())
    assert task.denoiser.training


@pytest.mark.usefixtures("no_pictures")
def test_scalars_reach_the_csv_logger_while_training_and_at_the_end(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    fit(tmp_path, [comparison(counted(every=2), tmp_path)], max_epochs=3, logger=logger)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[MEDIAN]]
    assert [float(row[MEDIAN]) for row in rows] == pytest.approx(VALUES[:2])
    # Two steps an epoch; Lightning counts the step it is in.
    assert [int(row["step"]) for row in rows] == [3, 6]


@pytest.mark.usefixtures("no_pictures")
def test_scalars_reach_the_callback_metrics(tmp_path):
    fitter = fit(tmp_path, [comparison(counted(every=1), tmp_path)], max_epochs=2)
    assert float(fitter.callback_metrics[MEDIAN]) == pytest.approx(VALUES[1])


@pytest.mark.usefixtures("no_pictures")
def test_a_checkpoint_can_monitor_a_scalar(tmp_path):
    best = ModelCheckpoint(tmp_path, filename="{epoch}", monitor=MEDIAN, mode="max", save_top_k=1)
    callbacks = [comparison(counted(every=1), tmp_path), best]
    fit(tmp_path, callbacks, max_epochs=3, enable_checkpointing=True)
    assert float(best.best_model_score) == pytest.approx(max(VALUES[:3]))
    assert best.best_model_path.endswith("epoch=1.ckpt")


@pytest.mark.parametrize("name", ["best", "checkpoint"])
@pytest.mark.usefixtures("no_pictures")
def test_the_name_of_a_metric_makes_no_folder_in_that_of_a_checkpoint(tmp_path, name):
    filename = f"callbacks.{name}.filename='epoch-{{epoch}}-{{val/loss:.0f}}'"
    run = train(tmp_path / "run", "callbacks=[checkpoint,best]", filename, "compare=false")
    checkpoints = run / "checkpoints"
    assert all(path.is_file() for path in checkpoints.iterdir())
    assert any(re.fullmatch(r"epoch-0-\d+\.ckpt", path.name) for path in checkpoints.iterdir())


def test_files_are_written_and_the_result_is_kept(tmp_path):
    callback = comparison(real(), tmp_path / "run")
    fit(tmp_path, [callback])
    written = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert written == {
        *("scales.json", "calibration.csv", "receptive_field.csv", "receptive_field.npz"),
        *("comparison.csv", "consistency.csv", "summary.json", "samples.npz"),
        *(f"figures/{name}.png" for name in ("scales", "receptive_field", "pairs", "ranking", "scatter", "training")),
    }
    tables = load_scales(tmp_path / "run" / "scales.json")
    assert tables["bbels"].to_dict() == callback.result.scales["bbels"].to_dict()
    medians = json.loads((tmp_path / "run" / "summary.json").read_text())["machines"]["bbels"]["2"]["pearson_r"]
    assert medians["median"] == callback.result.scalars()[MEDIAN]


@pytest.mark.usefixtures("no_pictures")
def test_the_comparison_does_not_change_the_training(tmp_path):
    def weights(callbacks):
        torch.manual_seed(0)
        task = DenoisingTask(network())
        torch.manual_seed(1)
        trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(task, digits())
        return task.denoiser.state_dict()

    every = ComparisonSettings(steps=2, network_steps=2, num_pairs=3, every_n_epochs=1)
    measured = weights([comparison(real(machines={"is": IdealScoreMachine}, comparison=every), tmp_path)])
    torch.testing.assert_close(measured, weights([]), rtol=0, atol=0)


@pytest.mark.usefixtures("no_pictures")
def test_a_training_in_half_precision_is_compared_in_full(tmp_path):
    options = ["trainer.precision=bf16-mixed", "comparison.every_n_epochs=1", "machines=[bbels,is]"]
    half, full = (train(tmp_path / name, *given) for name, given in (("half", options), ("full", options[1:])))
    assert len({(run / "metrics.csv").read_text() for run in (half, full)}) == 2
    done = cli(
        "compare", f"checkpoint={half}", "machines=[bbels,is]", *MEASUREMENT, f"hydra.run.dir={tmp_path / 'again'}"
    )
    assert done.code == 0, done.err
    for name in ("scales.json", "calibration.csv", "comparison.csv"):
        assert (half / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_the_gradients_of_the_network_are_found_in_the_midst_of_validation(tmp_path):
    """Where they are switched off."""

    class Last(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            assert not torch.is_grad_enabled()
            self.gradient = measured.result.gradients.gradient

    settings = ComparisonSettings(steps=2, network_steps=2, num_pairs=3, every_n_epochs=1)
    measured, last = comparison(real(comparison=settings), tmp_path), Last()
    fit(tmp_path, [measured, last])
    assert (last.gradient.amax(dim=(1, 2)) > 0).all()
    assert last.gradient.shape == (2, 8, 8)


@pytest.mark.usefixtures("no_pictures")
def test_held_out_images_calibrate_while_training(tmp_path):
    data = digits()
    settings = CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=20, objective="heldout")
    callback = comparison(real(calibration=settings, heldout=Split(data.val_images, data.val_labels)), tmp_path)
    fit(tmp_path, [callback], data)
    assert callback.result.calibrations["bbels"].objective == "heldout"


class Unlabelled(ImageDataModule):
    """Digits whose labels nobody wrote down."""

    train_labels = None


def unlabelled() -> Unlabelled:
    return Unlabelled("digits", train_size=40, val_size=20, batch_size=20)


@pytest.mark.parametrize(
    ("options", "conditional", "data", "message"),
    [
        ({"scales": {}}, False, digits, "no scales for the machine bbels"),
        ({"scales": {"bbels": ScaleTable([0.99, 0.98], [3, 5])}}, False, digits, "the scale table covers"),
        ({}, True, unlabelled, "the data has no labels"),
    ],
    ids=["scales missing", "scales too narrow", "labels missing"],
)
def test_a_comparison_that_cannot_work_is_refused_before_the_first_step(tmp_path, options, conditional, data, message):
    steps = []

    class Watched(DenoisingTask):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    fitter = trainer(tmp_path, callbacks=[comparison(real(**options), tmp_path / "run")])
    with pytest.raises(InputError, match=message):
        fitter.fit(Watched(network(conditional=conditional)), data())
    assert steps == []
    assert not (tmp_path / "run").exists()


def test_a_module_that_is_no_denoising_task_is_refused(tmp_path):
    class Other(LightningModule):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training has begun")

        def configure_optimizers(self):
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)

    with pytest.raises(InputError, match="compares a DenoisingTask, not a Other"):
        trainer(tmp_path, callbacks=[comparison(counted(), tmp_path)]).fit(Other(), digits())


def test_loaders_without_a_data_module_are_refused(tmp_path):
    loader = DataLoader(TensorBank(Split(digits().train_images, None)), batch_size=20, collate_fn=lambda batch: batch)
    fitter = trainer(tmp_path, callbacks=[comparison(counted(), tmp_path)])
    with pytest.raises(InputError, match="needs a data module with train_images"):
        fitter.fit(DenoisingTask(network()), loader)


class WithLogImage(Plain):
    """Takes images as W&B's logger does."""

    def log_image(self, key, images, step=None):
        self.images += [(key, np.asarray(image), step) for image in images]


class WithAddImage(Plain):
    """Takes images as TensorBoard's logger does."""

    @property
    def experiment(self):
        return self

    def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
        assert dataformats == "HWC"
        self.images.append((tag, np.asarray(img_tensor), global_step))


def red_figure() -> Figure:
    figure = Figure(figsize=(2, 1), dpi=50, facecolor="red")
    figure.add_axes((0.25, 0.25, 0.5, 0.5)).axis("off")
    return figure


@pytest.mark.parametrize("kind", [WithLogImage, WithAddImage])
def test_a_figure_reaches_a_logger_that_takes_images_as_rgb_bytes(kind):
    logger = kind()
    log_figure(logger, "pairs", red_figure(), 7)
    ((name, pixels, step),) = logger.images
    assert (name, step) == ("pairs", 7)
    assert (pixels.shape, pixels.dtype) == ((50, 100, 3), np.uint8)
    assert (pixels == [255, 0, 0]).all()


def test_a_logger_without_images_loses_nothing():
    logger = Plain()
    log_figure(logger, "pairs", red_figure(), 7)
    assert logger.scalars == []
    assert logger.images == []


def test_a_figure_can_be_saved_after_it_was_logged(tmp_path):
    figure = red_figure()
    log_figure(WithLogImage(), "pairs", figure, 0)
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (100, 50)


@pytest.mark.parametrize("kind", [Plain, WithLogImage, WithAddImage])
def test_every_logger_gets_scalars_and_those_with_images_get_figures(tmp_path, kind):
    logger = kind()
    fit(tmp_path, [comparison(real(machines={"is": IdealScoreMachine}), tmp_path)], logger=logger)
    name = "val/is/pearson_r_median"
    assert len([metrics[name] for metrics, _ in logger.scalars if name in metrics]) == 1
    assert sorted(name for name, _, _ in logger.images) == ([] if kind is Plain else ["pairs", "training"])


@pytest.mark.usefixtures("no_pictures")
def test_partial_factories_are_machines_too(tmp_path):
    callback = comparison(real(machines={"ls": partial(LocalScoreMachine)}), tmp_path)
    fit(tmp_path, [callback])
    assert set(callback.result.scales) == {"ls"}
