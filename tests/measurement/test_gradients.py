"""The gradient field of a network is that of its kernels, and ends where its window ends."""

import pytest
import reference
import torch
from denoisers import LOCAL
from torch import nn

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.measurement.gradients import GradientField, effective_size, gradient_field
from elslightning.networks.adapter import EpsDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

SCHEDULE = CosineSchedule()


class Backbone(nn.Module):
    """Noise that is `function(x_t, t, labels)`."""

    conditional, receptive_field = False, None

    def __init__(self, channels, function, **attributes):
        super().__init__()
        self.channels, self.function = channels, function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x_t, t, labels):
        return self.function(x_t, t, labels)


def network(function, channels=1, **attributes) -> EpsDenoiser:
    return EpsDenoiser(Backbone(channels, function, **attributes), SCHEDULE)


def convolution(kernel, padding_mode="zeros") -> nn.Conv2d:
    """A convolution of odd side that keeps the size of images."""
    outputs, inputs, side, _ = kernel.shape
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, padding_mode=padding_mode, bias=False).double()
    conv.weight.data = kernel
    return conv


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(7, 7), (6, 9)])
def test_the_field_of_one_convolution_is_its_kernel(channels, padding_mode, shape):
    kernel = random_images(channels, channels, 5, 5)
    conv = convolution(kernel, padding_mode)
    field = gradient_field(
        network(lambda x_t, t, labels: conv(x_t), channels), SCHEDULE, steps=3, noise=random_noise(2, channels, *shape)
    )
    assert torch.equal(field.alpha_bar, SCHEDULE.noise_levels(3))
    row, column = (side // 2 for side in shape)
    expected = torch.zeros(3, *shape, dtype=torch.float64)
    expected[:, row - 2 : row + 3, column - 2 : column + 3] = kernel.abs().sum(dim=1).mean(dim=0)
    torch.testing.assert_close(field.gradient, expected, rtol=1e-14, atol=0)
    assert field.size(1.0).tolist() == [5] * 3


def test_the_field_of_x0_is_that_of_eps_without_x_t_itself():
    kernel = random_images(2, 2, 3, 3)
    conv = convolution(kernel)
    field = gradient_field(
        network(lambda x_t, t, labels: conv(x_t), 2), SCHEDULE, steps=4, noise=random_noise(1, 2, 5, 5)
    )
    itself = torch.zeros(2, 2, 3, 3).double()
    itself[range(2), range(2), 1, 1] = 1
    for alpha_bar, found in zip(field.alpha_bar, field.x0_gradient, strict=True):
        expected = ((itself - (1 - alpha_bar).sqrt() * kernel) / alpha_bar.sqrt()).abs().sum(dim=1).mean(dim=0)
        torch.testing.assert_close(found[1:4, 1:4], expected, rtol=1e-10, atol=0)
        assert found.sum() == pytest.approx(float(expected.sum()))


def test_a_network_that_returns_its_input_has_a_field_of_one_pixel_and_one_that_knows_better_a_wider_one():
    """At t = 1, eps is x_t but for a hundredth: nearly all of its gradient is at the centre."""
    blur = convolution(torch.ones(1, 1, 5, 5).double() / 25)

    def informed(x_t, t, labels):
        alpha_bar = SCHEDULE.alpha_bar(t)[:, None, None, None]
        return (x_t - alpha_bar.sqrt() * blur(x_t)) / (1 - alpha_bar).sqrt()

    noise = random_noise(1, 1, 7, 7)
    known, copied = (
        gradient_field(network(function), SCHEDULE, steps=1, noise=noise)
        for function in (informed, lambda x_t, t, labels: x_t)
    )
    assert known.size(0.9).item() == 5
    assert copied.size(0.9).item() == 1
    assert effective_size(known.gradient, 0.9).item() == 1


def test_the_absolute_gradient_is_averaged_over_the_states_of_the_networks_own_process():
    denoiser, noise = network(lambda x_t, t, labels: x_t.square() / 2), random_noise(4, 1, 5, 5)
    field = gradient_field(denoiser, SCHEDULE, steps=3, noise=noise)
    states = ddim(denoiser, noise, SCHEDULE, 3).x_t[:-1, :, 0, 2, 2]  # (step, sample)
    torch.testing.assert_close(field.gradient[:, 2, 2], states.abs().mean(dim=1))
    assert field.size(1.0).tolist() == [1] * 3


def test_every_noise_level_has_its_own_field():
    narrow, wide = convolution(torch.ones(1, 1, 1, 1).double()), convolution(torch.ones(1, 1, 5, 5).double() / 25)
    denoiser = network(lambda x_t, t, labels: torch.where(t[:, None, None, None] > 0.5, wide(x_t), narrow(x_t)))
    field = gradient_field(denoiser, SCHEDULE, steps=4, noise=random_noise(2, 1, 7, 7))
    assert field.size(0.9).tolist() == [5, 5, 1, 1]


def test_labels_reach_the_network():
    denoiser = network(lambda x_t, t, labels: labels[:, None, None, None] * x_t, conditional=True)
    field = gradient_field(denoiser, SCHEDULE, steps=1, noise=random_noise(2, 1, 3, 3), labels=torch.tensor([1, 4]))
    assert field.gradient[0, 1, 1] == 2.5


@pytest.mark.parametrize("num_layers", [0, 2])
def test_the_field_of_a_resnet_fills_its_formal_receptive_field_and_nothing_more(num_layers):
    torch.manual_seed(0)
    backbone = ResNet(1, width=16, num_layers=num_layers).double()
    field = gradient_field(EpsDenoiser(backbone, SCHEDULE), SCHEDULE, steps=2, noise=random_noise(2, 1, 15, 15))
    side = 1 + 2 * (num_layers + 2)
    assert field.formal == side
    assert field.size(1.0).tolist() == [side] * 2
    assert (field.gradient > 0).sum(dim=(1, 2)).tolist() == [side**2] * 2


class Naive(Denoiser):
    """A local machine that autograd can go through."""

    def __init__(self, name, images, patch_size):
        super().__init__()
        self.name, self.images, self.patch_size = name, images, patch_size

    def forward(self, x_t, alpha_bar, labels=None):
        means = (
            reference.posterior_mean(self.name, one, float(alpha_bar[0]), self.images, self.patch_size) for one in x_t
        )
        return torch.stack(list(means))


@pytest.mark.parametrize("patch_size", [1, 3, 5])
@pytest.mark.parametrize("name", LOCAL)
def test_the_field_of_a_local_machine_is_its_patch(name, patch_size):
    images, noise = random_images(3, 1, 6, 7), random_noise(1, 1, 6, 7)
    denoiser = Naive(name, images, patch_size)
    field = gradient_field(denoiser, SCHEDULE, steps=2, noise=noise)
    assert field.size(1.0).tolist() == [patch_size] * 2
    assert (field.gradient > 0).sum(dim=(1, 2)).tolist() == [patch_size**2] * 2
    # The machine itself has no autograd, but differences.
    machine, alpha_bar, h = LOCAL[name](images, scales=patch_size), levels(float(field.alpha_bar[0])), 1e-5
    steps = h * torch.eye(42).double().reshape(42, 1, 6, 7)
    up, down = (machine.eps(noise + step, alpha_bar.expand(42))[:, 0, 3, 3] for step in (steps, -steps))
    torch.testing.assert_close(((up - down) / (2 * h)).abs().reshape(6, 7), field.gradient[0], rtol=1e-4, atol=1e-7)
    up, down = (machine(noise + step, alpha_bar.expand(42))[:, 0, 3, 3] for step in (steps, -steps))
    torch.testing.assert_close(((up - down) / (2 * h)).abs().reshape(6, 7), field.x0_gradient[0], rtol=1e-4, atol=1e-7)


def test_a_machine_is_refused():
    machine = LOCAL["ls"](random_images(3, 1, 5, 5), scales=3)
    with pytest.raises(InputError, match="LocalScoreMachine has no gradient"):
        gradient_field(machine, SCHEDULE, steps=2, noise=random_noise(1, 1, 5, 5))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_where_they_are_switched_off(mode):
    torch.manual_seed(0)
    backbone = ResNet(1, width=16, num_layers=1, conditional=True, num_classes=3, time_embedding="mlp")
    denoiser, noise, labels = EpsDenoiser(backbone, SCHEDULE), random_noise(2, 1, 6, 6).float(), torch.tensor([2, 0])
    expected = gradient_field(denoiser, SCHEDULE, steps=2, noise=noise, labels=labels)
    with mode():
        found = gradient_field(denoiser, SCHEDULE, steps=2, noise=noise + 0, labels=labels + 0)
    assert torch.equal(found.gradient, expected.gradient)


def test_the_network_and_the_noise_are_left_as_they_were():
    torch.manual_seed(0)
    backbone, noise = ResNet(1, width=16, num_layers=1), random_noise(2, 1, 6, 6).float()
    before = noise.clone()
    field = gradient_field(EpsDenoiser(backbone, SCHEDULE).train(), SCHEDULE, steps=2, noise=noise)
    assert backbone.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in backbone.parameters())
    assert torch.equal(noise, before)
    assert not noise.requires_grad
    assert not field.gradient.requires_grad


def test_progress_counts_steps():
    told = []
    denoiser = network(lambda x_t, t, labels: x_t)
    gradient_field(
        denoiser, SCHEDULE, steps=2, noise=random_noise(1, 1, 3, 3), progress=lambda *call: told.append(call)
    )
    assert told == [("receptive field", 1, 2), ("receptive field", 2, 2)]


# Sizes.


def box(side: int, shape=(9, 9)) -> GradientField:
    gradient = torch.zeros(1, *shape)
    rows, columns = (slice(centre // 2 - side // 2, centre // 2 + side // 2 + 1) for centre in shape)
    gradient[:, rows, columns] = 1
    return GradientField(levels(0.5), torch.zeros_like(gradient), gradient)


@pytest.mark.parametrize("shape", [(9, 9), (9, 12), (8, 8)])
@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_the_size_of_a_box_is_the_share_of_its_area(side, shape):
    field = box(side, shape)
    for smaller in range(1, side + 1, 2):
        share = smaller**2 / side**2
        assert field.size(share).item() == smaller
        assert field.size(min(1, share + 1e-6)).item() == min(side, smaller + 2)


def test_the_window_reaches_to_the_farther_border():
    gradient = torch.zeros(1, 8, 6)
    gradient[0, 0, 0] = 1
    assert effective_size(gradient, 0.5).item() == 9


def test_sizes_grow_with_the_share():
    gradient = random_images(2, 9, 9).abs()
    sizes = torch.stack([effective_size(gradient, share) for share in (0.01, 0.3, 0.5, 0.9, 0.99, 1.0)])
    assert (sizes.diff(dim=0) >= 0).all()
    assert sizes[-1].tolist() == [9, 9]


def test_without_a_gradient_the_size_is_1():
    assert effective_size(torch.zeros(1, 5, 5), 0.9).item() == 1
