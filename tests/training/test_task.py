"""DenoisingTask: what it minimises, what it reports, and what it saves."""

import functools
import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from tiny import digits, network, trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from elslightning.data.module import Batch, ImageDataModule
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import PREDICTIONS
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine, LocalScoreMachine
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result
from elslightning.measurement.settings import ComparisonSettings
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.system.errors import InputError
from elslightning.training.comparing import ELSComparison
from elslightning.training.layout import laid_as_loaded, lay_side_by_side
from elslightning.training.task import DenoisingTask, one_cycle

pytestmark = pytest.mark.usefixtures("no_layout")

LEVELS = 20


class Recording(Denoiser):
    """One parameter, and a memory of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t, alpha_bar, labels=None):
        self.seen.append((x_t.detach().clone(), alpha_bar.clone()))
        return self.factor * x_t


def validate(tmp_path, denoiser: Denoiser, data: ImageDataModule, **options) -> float:
    task = DenoisingTask(denoiser, **options)
    return trainer(tmp_path).validate(task, data, verbose=False)[0]["val/loss"]


def noised(image: Tensor, position: int) -> tuple[Tensor, Tensor, float]:
    """What validation makes of an image: (x_t, noise, alpha_bar), in float64."""
    t = (position % LEVELS + 0.5) / LEVELS
    alpha_bar = math.cos(t / 1.008 * math.pi / 2) ** 2
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(position)).double()
    return math.sqrt(alpha_bar) * image.double() + math.sqrt(1 - alpha_bar) * noise, noise, alpha_bar


def ideal_loss(images: Tensor, bank: Tensor) -> float:
    """The validation loss of IS over a bank, by hand."""
    errors = []
    for position, image in enumerate(images):
        x_t, noise, alpha_bar = noised(image, position)
        distance = (x_t - math.sqrt(alpha_bar) * bank.double()).square().flatten(1).sum(dim=1)
        weight = torch.softmax(-distance / (2 * (1 - alpha_bar)), dim=0)
        x0 = (weight[:, None, None, None] * bank.double()).sum(dim=0)
        errors.append(((x_t - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar) - noise).square().mean())
    return float(torch.stack(errors).mean())


def test_the_validation_loss_is_the_mean_squared_error_of_eps_on_the_fixed_grid():
    data = digits(val_size=30)
    bank = data.train_images.double()
    task = DenoisingTask(IdealScoreMachine(bank))
    batch = Batch(data.val_images.double(), data.val_labels, torch.arange(30))
    assert float(task.validation_step(batch, 0)) == pytest.approx(ideal_loss(data.val_images, bank), rel=1e-9)


def test_validate_reports_that_loss_for_a_machine(tmp_path):
    data = digits(val_size=30)
    loss = validate(tmp_path, IdealScoreMachine(data.train_images), data)
    assert loss == pytest.approx(ideal_loss(data.val_images, data.train_images), rel=1e-4)


def losses(task: DenoisingTask, step: str, batch: Batch) -> tuple[float, dict[str, float]]:
    """What a step returns and logs."""
    logged: dict[str, float] = {}
    task.log = lambda name, value, **options: logged.update({name: float(value)})
    return float(getattr(task, step)(batch, 0)), logged


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_validation_loss_is_that_of_eps_whatever_is_predicted_and_v_loss_is_it_over_alpha_bar(prediction):
    data = digits(val_size=30)
    machine = IdealScoreMachine(data.train_images.double())
    machine.prediction = prediction
    batch = Batch(data.val_images.double(), data.val_labels, torch.arange(30))
    loss, logged = losses(DenoisingTask(machine), "validation_step", batch)
    assert loss == logged["val/loss"] == pytest.approx(ideal_loss(data.val_images, data.train_images), rel=1e-9)
    expected = []
    for position, image in enumerate(batch.images):
        x_t, noise, alpha_bar = noised(image, position)
        eps = machine.eps(x_t[None], torch.tensor([alpha_bar], dtype=torch.float64))[0]
        expected.append((eps - noise).square().mean() / alpha_bar)
    assert logged["val/v_loss"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_training_loss_is_the_error_of_what_the_network_predicts(monkeypatch, prediction):
    monkeypatch.setattr(DenoisingTask, "global_rank", property(lambda self: 0))
    monkeypatch.setattr(DenoisingTask, "global_step", property(lambda self: 0))
    torch.manual_seed(0)
    backbone = ResNet(1, width=16, num_layers=0, prediction=prediction).double()
    images, seen = digits().train_images[:6].double(), []
    denoiser = NetworkDenoiser(backbone, CosineSchedule())
    backbone.register_forward_hook(lambda module, given, returned: seen.append((given[0], given[1], returned)))
    loss, _ = losses(DenoisingTask(denoiser), "training_step", Batch(images, None, torch.arange(6)))
    ((x_t, t, returned),) = seen
    angle = (t / 1.008 * math.pi / 2)[:, None, None, None]
    noise = (x_t - angle.cos() * images) / angle.sin()
    wanted = {"eps": noise, "v": angle.cos() * noise - angle.sin() * images, "x0": images}[prediction]
    assert loss == pytest.approx(float((returned - wanted).square().mean()), rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_the_validation_loss_does_not_depend_on_the_batch(tmp_path, batch_size):
    torch.manual_seed(0)
    denoiser = network()
    whole = validate(tmp_path, denoiser, digits(val_size=30, batch_size=64))
    assert validate(tmp_path, denoiser, digits(val_size=30, batch_size=batch_size)) == pytest.approx(whole, rel=1e-5)


def test_the_validation_loss_does_not_depend_on_the_epoch_or_the_seed(tmp_path):
    class Curve(Callback):
        def __init__(self):
            self.losses = []

        def on_validation_end(self, trainer, pl_module):
            self.losses.append(float(trainer.callback_metrics["val/loss"]))

    curve, denoiser = Curve(), network()
    still = functools.partial(torch.optim.SGD, lr=0.0)
    trainer(tmp_path, max_epochs=3, callbacks=[curve]).fit(DenoisingTask(denoiser, optimizer=still), digits())
    assert curve.losses == pytest.approx([validate(tmp_path, denoiser, digits(), seed=7)] * 3)


def test_a_better_informed_machine_has_the_lower_loss_on_its_own_bank(tmp_path):
    # On data drawn from the bank each machine is the posterior mean given what it sees, and its mean squared
    # error is least among all functions of that: the whole image; a patch and where it is; a patch.
    data = digits(val_size=297)
    bank = data.val_images
    losses = [
        validate(tmp_path, machine, data)
        for machine in (
            IdealScoreMachine(bank),
            LocalScoreMachine(bank, scales=5),
            LocalScoreMachine(bank, scales=3),
            BoundaryBrokenScoreMachine(bank, scales=3),
        )
    ]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


def test_training_a_machine_is_refused(tmp_path):
    data = digits()
    with pytest.raises(InputError, match=r"IdealScoreMachine has no parameters to train: use trainer\.validate"):
        trainer(tmp_path).fit(DenoisingTask(IdealScoreMachine(data.train_images)), data)


def training_inputs(monkeypatch, *, rank=0, step=0, seed=0) -> tuple[Tensor, Tensor]:
    """The noisy images and noise levels that one training step shows the denoiser."""
    monkeypatch.setattr(DenoisingTask, "global_rank", property(lambda self: rank))
    monkeypatch.setattr(DenoisingTask, "global_step", property(lambda self: step))
    denoiser = Recording()
    images = torch.zeros(6, 1, 8, 8)
    DenoisingTask(denoiser, seed=seed).training_step(Batch(images, None, torch.arange(6)), 0)
    return denoiser.seen[0]


def test_training_noise_is_reproducible(monkeypatch):
    first, second = training_inputs(monkeypatch, rank=1, step=5), training_inputs(monkeypatch, rank=1, step=5)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("other", [{"rank": 1}, {"step": 1}, {"seed": 1}], ids=["rank", "step", "seed"])
def test_training_noise_differs_from_process_to_process_and_step_to_step(monkeypatch, other):
    (x_t, alpha_bar), (x_t_other, alpha_bar_other) = training_inputs(monkeypatch), training_inputs(monkeypatch, **other)
    assert (x_t != x_t_other).all()
    assert (alpha_bar != alpha_bar_other).all()


def test_training_noise_does_not_follow_the_global_generator(monkeypatch):
    torch.manual_seed(0)
    first = training_inputs(monkeypatch)
    torch.manual_seed(1)
    torch.testing.assert_close(first, training_inputs(monkeypatch), rtol=0, atol=0)


def test_training_times_are_uniform_and_the_noise_is_standard_normal(monkeypatch):
    seen = [training_inputs(monkeypatch, step=step) for step in range(200)]
    t = CosineSchedule().time(torch.cat([alpha_bar for _, alpha_bar in seen]))
    noise = torch.cat([x_t / (1 - alpha_bar).sqrt().float()[:, None, None, None] for x_t, alpha_bar in seen])
    # Four standard errors of 1,200 times and 76,800 pixels.
    assert float(t.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 1200))
    assert float(t.var()) == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / 1200))
    assert float(noise.mean()) == pytest.approx(0, abs=4 / math.sqrt(76800))
    assert float(noise.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / 76800))


def test_the_default_optimizer_is_the_papers(tmp_path):
    fitter = trainer(tmp_path, max_epochs=2)
    fitter.fit(DenoisingTask(network()), digits())
    (optimizer,) = fitter.optimizers
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["weight_decay"] == 0
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert fitter.global_step == 4
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 * 0.999965**4, rel=1e-12)


class Rates(Callback):
    """The learning rate of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.values.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_one_cycle_ends_with_the_training(tmp_path):
    rates = Rates()
    task = DenoisingTask(network(), scheduler=functools.partial(one_cycle, max_lr=1e-2))
    trainer(tmp_path, max_epochs=3, callbacks=[rates]).fit(task, digits(train_size=100))
    assert len(rates.values) == 15
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    schedule = OneCycleLR(optimizer, 1e-2, total_steps=15)
    expected = []
    for _ in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates.values == pytest.approx(expected, rel=1e-12)
    assert rates.values[-1] == pytest.approx(1e-2 / 25 / 1e4)


class Stop(Callback):
    """Ends the training after two epochs."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 1


def test_training_without_a_fixed_end_is_possible_with_the_papers_schedule(tmp_path):
    fitter = trainer(tmp_path, max_epochs=-1, callbacks=[Stop()])
    fitter.fit(DenoisingTask(network()), digits())
    assert fitter.global_step == 4
    assert fitter.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4 * 0.999965**4, rel=1e-12)


def test_one_cycle_without_a_fixed_end_is_refused(tmp_path):
    task = DenoisingTask(network(), scheduler=functools.partial(one_cycle, max_lr=1e-2))
    with pytest.raises(InputError, match="needs an end of the training"):
        trainer(tmp_path, max_epochs=-1, callbacks=[Stop()]).fit(task, digits())


def assert_primitive(value: object) -> None:
    if isinstance(value, dict):
        for key, content in value.items():
            assert type(key) is str
            assert_primitive(content)
    elif isinstance(value, list):
        for content in value:
            assert_primitive(content)
    else:
        assert value is None or type(value) in (bool, int, float, str)


def test_a_checkpoint_loads_as_weights_only_and_describes_itself_in_primitives(tmp_path):
    config = {"denoiser": {"width": 8, "sizes": [3, 5]}, "seed": 0, "root": None}
    fitter = trainer(tmp_path, enable_checkpointing=True)
    task = DenoisingTask(network(), config=config)
    fitter.fit(task, digits())
    fitter.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    known = {"format": 1, "config": config, "data_sha256": digits().checksum()}
    assert content["elslightning"] == known
    assert_primitive(content["elslightning"])
    assert set(content["state_dict"]) == {f"denoiser.{name}" for name in task.denoiser.state_dict()}


def test_a_machine_adds_no_images_to_a_checkpoint():
    task = DenoisingTask(IdealScoreMachine(digits().train_images))
    assert dict(task.state_dict()) == {}


class Captured(Measurement):
    """A measurement that only remembers the weights it was shown."""

    def __post_init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def check(self, network, images, labels, schedule):
        pass

    def run(self, network, *arguments, **options):
        self.weights.append({name: value.clone() for name, value in network.state_dict().items()})
        return Result({}, {})


class RawWeights(Callback):
    """The weights that the optimizer left after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.steps.append({name: value.clone() for name, value in pl_module.denoiser.state_dict().items()})


def averaged(steps: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """The exponential moving average of weights, by hand."""
    average = dict(steps[0])
    for weights in steps[1:]:
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
    return average


@pytest.fixture(params=[None, 1], ids=["at the end", "every epoch"])
def averaging(request, tmp_path):
    """A training with weight averaging: (weights the measurement saw, raw weights per step, checkpoint)."""
    measurement = Captured({}, comparison=ComparisonSettings(every_n_epochs=request.param))
    raw = RawWeights()
    callbacks = [
        ELSComparison(measurement, tmp_path, show_progress=False),
        raw,
        EMAWeightAveraging(decay=0.5, use_buffers=False),
        ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, save_on_train_epoch_end=True),
    ]
    task = DenoisingTask(network(), optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
    trainer(tmp_path, max_epochs=2, callbacks=callbacks, enable_checkpointing=True).fit(task, digits())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    return measurement.weights, raw.steps, {name.removeprefix("denoiser."): checkpoint[name] for name in checkpoint}


def test_a_checkpoint_holds_averaged_weights(averaging):
    _, raw, checkpoint = averaging
    torch.testing.assert_close(checkpoint, averaged(raw, 0.5))
    assert not torch.equal(checkpoint["backbone.down_projection.weight"], raw[-1]["backbone.down_projection.weight"])


def test_the_comparison_sees_averaged_weights(averaging):
    seen, raw, checkpoint = averaging
    torch.testing.assert_close(seen[-1], checkpoint, rtol=0, atol=0)
    if len(seen) == 2:  # the epochs end after two and four steps
        torch.testing.assert_close(seen[0], averaged(raw[:2], 0.5))


class Layout(Callback):
    """How the weights of a network lie in memory while it is trained, and its weights when that is over."""

    def on_train_batch_end(self, trainer, task, *arguments):
        weight = task.denoiser.backbone.convs[0][0].weight
        self.side_by_side = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()

    def on_fit_end(self, trainer, task):
        self.end = {parameter.stride() == torch.empty(parameter.shape).stride() for parameter in task.parameters()}


def test_on_a_cpu_channels_lie_side_by_side_while_a_network_is_trained_and_no_longer(tmp_path):
    layout, denoiser = Layout(), network()
    trainer(tmp_path, callbacks=[layout]).fit(DenoisingTask(denoiser), digits())
    assert layout.side_by_side
    assert layout.end == {True}


def test_what_is_measured_meanwhile_lies_as_it_is_loaded_and_the_tensors_stay():
    denoiser = network()
    lay_side_by_side(denoiser)
    before = [part.data for part in denoiser.parameters()]
    laid = [part.stride() != torch.empty(part.shape).stride() for part in before]
    assert any(laid)
    with laid_as_loaded(denoiser):
        for part, data in zip(denoiser.parameters(), before, strict=True):
            assert part.stride() == torch.empty(part.shape).stride()
            assert torch.equal(part, data)
        # What lies so already is not copied.
        assert laid == [
            part.data_ptr() != data.data_ptr() for part, data in zip(denoiser.parameters(), before, strict=True)
        ]
    assert all(
        part.data.data_ptr() == data.data_ptr() for part, data in zip(denoiser.parameters(), before, strict=True)
    )


def test_how_weights_lie_in_memory_does_not_matter():
    denoiser = network()
    x_t, alpha_bar = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 0.9])
    plain = denoiser(x_t, alpha_bar.double())
    lay_side_by_side(denoiser)
    other = denoiser(x_t, alpha_bar.double())
    torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-5)
    assert other.is_contiguous()
