"""The reverse process, where its solution is known: one training image, and a Gaussian."""

import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import ddim, reverse_process, sample
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import IdealScoreMachine, LocalScoreMachine
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

SCHEDULE = CosineSchedule()


class Gaussian(Denoiser):
    """The posterior mean of independent pixels of a given mean and variance."""

    mean, variance = 0.3, 0.25

    def forward(self, x_t, alpha_bar, labels=None):
        alpha_bar = alpha_bar[:, None, None, None]
        gain = alpha_bar.sqrt() * self.variance / (alpha_bar * self.variance + 1 - alpha_bar)
        return self.mean + gain * (x_t - alpha_bar.sqrt() * self.mean)


class Recorder(Denoiser):
    """Returns zeros, and keeps what it was called with."""

    def __init__(self, conditional=False):
        super().__init__()
        self.conditional = conditional
        self.calls = []

    def forward(self, x_t, alpha_bar, labels=None):
        self.calls.append((x_t, alpha_bar, labels))
        return torch.zeros_like(x_t)


@pytest.fixture
def noise():
    return random_noise(5, 1, 4, 4)


@pytest.fixture
def machine():
    return LocalScoreMachine(random_images(6, 1, 4, 4), torch.arange(6) % 2, scales=3)


LABELS = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ideal_machine_of_one_image_samples_that_image(noise, steps):
    image = random_images(1, 1, 4, 4)
    samples = ddim(IdealScoreMachine(image), noise, SCHEDULE, steps).samples
    assert_close(samples, image.expand_as(samples), rtol=0, atol=1e-14)


def test_states_of_one_image_lie_on_the_line_of_constant_noise(noise):
    image = random_images(1, 1, 4, 4)
    trajectory = ddim(IdealScoreMachine(image), noise, SCHEDULE, 6)
    signal, scale = (
        c[:, None, None, None, None] for c in (trajectory.alpha_bar.sqrt(), (1 - trajectory.alpha_bar).sqrt())
    )
    eps = (noise - signal[0] * image) / scale[0]
    assert_close(trajectory.x_t, signal * image + scale * eps, rtol=1e-12, atol=1e-12)
    assert_close(trajectory.x0, image.expand_as(trajectory.x0), rtol=0, atol=1e-14)


def test_gaussian_samples_converge_to_the_exact_flow_at_first_order(noise):
    """The probability flow keeps (x - sqrt(alpha_bar) mean) / standard deviation constant."""
    start = SCHEDULE.alpha_bar(levels(1.0)).item()
    spread = (start * Gaussian.variance + 1 - start) ** 0.5
    exact = Gaussian.mean + Gaussian.variance**0.5 * (noise - start**0.5 * Gaussian.mean) / spread
    coarse, fine = (ddim(Gaussian(), noise, SCHEDULE, steps).samples - exact for steps in (100, 200))
    assert fine.abs().max() / coarse.abs().max() == pytest.approx(0.5, abs=0.02)
    assert (2 * fine - coarse).abs().max() < 1e-3


@pytest.mark.parametrize("steps", [1, 5])
def test_grid_runs_from_pure_noise_to_clean(noise, steps):
    trajectory = ddim(Gaussian(), noise, SCHEDULE, steps)
    assert torch.equal(trajectory.alpha_bar, SCHEDULE.alpha_bar(SCHEDULE.grid(steps)))
    assert trajectory.alpha_bar[-1] == 1
    assert torch.equal(trajectory.x_t[0], noise)
    assert (len(trajectory.x_t), len(trajectory.x0)) == (steps + 1, steps)
    # At t = 0 there is no noise left: the sample is the last posterior mean.
    assert_close(trajectory.samples, trajectory.x0[-1], rtol=0, atol=1e-14)


def test_denoiser_sees_every_state_at_its_own_level(noise):
    recorder = Recorder()
    trajectory = ddim(recorder, noise, SCHEDULE, 4)
    for i, (x_t, alpha_bar, labels) in enumerate(recorder.calls):
        assert torch.equal(x_t, trajectory.x_t[i])
        assert torch.equal(alpha_bar, SCHEDULE.noise_levels(4)[i].expand(5))
        assert labels is None
    assert len(recorder.calls) == 4


def test_a_process_that_skips_takes_the_noise_for_a_later_state(noise):
    recorder = Recorder()
    trajectory = ddim(recorder, noise, SCHEDULE, 4, skip=1)
    assert torch.equal(recorder.calls[0][0], noise)
    seen = [alpha_bar[0] for _, alpha_bar, _ in recorder.calls]
    assert torch.equal(torch.stack(seen), SCHEDULE.noise_levels(4)[1:])
    assert torch.equal(trajectory.alpha_bar, SCHEDULE.alpha_bar(SCHEDULE.grid(4))[1:])
    assert_close(sample(recorder, noise, SCHEDULE, 4, skip=1, batch_size=2), trajectory.samples)


@pytest.mark.parametrize("skip", [-1, 4])
def test_a_process_cannot_skip_all_its_steps(noise, skip):
    with pytest.raises(InputError, match=f"of 4 steps cannot leave out the first {skip}"):
        sample(Gaussian(), noise, SCHEDULE, 4, skip=skip)


@pytest.mark.parametrize("conditional", [False, True])
def test_labels_reach_conditional_denoisers_alone(noise, conditional):
    recorder = Recorder(conditional)
    sample(recorder, noise, SCHEDULE, 2, LABELS, batch_size=3)
    seen = [labels for _, _, labels in recorder.calls]
    if conditional:
        assert [labels.tolist() for labels in seen] == [[0, 1, 1], [0, 1, 1], [0, 1], [0, 1]]
    else:
        assert seen == [None] * 4


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_sample_is_the_end_of_ddim_whatever_the_batch_size(machine, noise, batch_size):
    samples = sample(machine, noise, SCHEDULE, 3, LABELS, batch_size=batch_size)
    assert_close(samples, ddim(machine, noise, SCHEDULE, 3, LABELS).samples, rtol=1e-10, atol=1e-10)


def test_steps_lead_from_one_state_to_the_next(machine, noise):
    trajectory = ddim(machine, noise, SCHEDULE, 3, LABELS)
    for i, step in enumerate(reverse_process(machine, noise, SCHEDULE, 3, LABELS)):
        assert step.alpha_bar == trajectory.alpha_bar[i]
        assert torch.equal(step.x_t, trajectory.x_t[i])
        assert torch.equal(step.x0, trajectory.x0[i])
        assert torch.equal(step.following, trajectory.x_t[i + 1])


def test_samples_carry_no_gradient(noise):
    network = torch.nn.Conv2d(1, 1, 1).double()
    denoiser = Recorder()
    denoiser.forward = lambda x_t, alpha_bar, labels=None: network(x_t)
    assert not ddim(denoiser, noise, SCHEDULE, 2).samples.requires_grad
    assert torch.is_grad_enabled()


def test_noise_is_left_as_it_was(machine, noise):
    before = noise.clone()
    sample(machine, noise, SCHEDULE, 3, LABELS)
    assert torch.equal(noise, before)


@pytest.mark.parametrize("sampler", [ddim, sample])
@pytest.mark.parametrize("steps", [0, -1])
def test_at_least_one_step_is_needed(noise, sampler, steps):
    with pytest.raises(InputError, match=f"at least 1 step, not {steps}"):
        sampler(Gaussian(), noise, SCHEDULE, steps)


def test_progress_counts_steps_of_a_trajectory(noise):
    told = []
    ddim(Gaussian(), noise, SCHEDULE, 3, progress=lambda *call: told.append(call))
    assert told == [("sampling", done, 3) for done in (1, 2, 3)]


def test_progress_counts_every_image_and_step(noise):
    told = []
    sample(Gaussian(), noise, SCHEDULE, 2, batch_size=3, what="here", progress=lambda *call: told.append(call))
    assert told == [("here", done, 10) for done in (3, 6, 8, 10)]


def test_progress_does_not_count_what_is_skipped(noise):
    told = []
    for sampler in (ddim, sample):
        sampler(Gaussian(), noise, SCHEDULE, 3, skip=1, progress=lambda *call: told.append(call))
    assert told == [("sampling", done, total) for done, total in ((1, 2), (2, 2), (5, 10), (10, 10))]
