"""The machines that know means and covariances only: what they equal, and where."""

import pytest
import torch
from torch.testing import assert_close

from elslightning.machines import IdealScoreMachine, MeanScoreMachine, WienerScoreMachine, moments
from elslightning.machines.moments import MomentMachine
from elslightning.machines.remembering import Remembering
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

ALPHA_BAR = levels(1e-4, 0.1, 0.5, 0.9, 0.9999)
SHAPE = (2, 3, 4)
DIM = 24


@pytest.fixture
def x_t():
    return random_noise(len(ALPHA_BAR), *SHAPE)


def flat(images):
    """Images that vary along three directions only."""
    varied = (random_noise(9, 3, seed=5) @ random_noise(3, DIM, seed=6)).reshape(9, *SHAPE) / 4 + random_images(
        1, *SHAPE
    )
    return varied / varied.abs().max()


def test_mean_is_what_the_ideal_machine_tends_to_with_noise(x_t):
    images = random_images(6, *SHAPE)
    noise = torch.full_like(ALPHA_BAR, 1e-13)
    assert_close(MeanScoreMachine(images)(x_t, ALPHA_BAR), IdealScoreMachine(images)(x_t, noise), rtol=0, atol=1e-5)


def test_wiener_tends_to_the_mean_with_noise(x_t):
    images = random_images(6, *SHAPE)
    noise = torch.full_like(ALPHA_BAR, 1e-13)
    found = WienerScoreMachine(images)(x_t, noise)
    assert_close(found, MeanScoreMachine(images)(x_t, noise), rtol=0, atol=1e-5)


def test_wiener_without_noise_keeps_what_lies_among_the_images(x_t):
    images = flat(x_t)
    clean = images[:5].mean(dim=0, keepdim=True)
    found = WienerScoreMachine(images)(clean, levels(1 - 1e-12))
    assert_close(found, clean, rtol=0, atol=1e-9)


def test_wiener_is_the_conditional_mean_of_jointly_gaussian_images(x_t):
    """Σ_xy Σ_yy⁻¹ of a sample with the moments of its Gaussian: of images and noisy images drawn together."""
    images = random_images(40, *SHAPE)
    clean = images.flatten(1)
    for index, alpha_bar in enumerate(ALPHA_BAR.tolist()):
        noise = (
            torch.linalg.qr(random_noise(200, DIM, seed=8) - random_noise(200, DIM, seed=8).mean(dim=0)).Q * 200**0.5
        )
        # Every image with every noise: uncorrelated, and the noise has unit covariance exactly.
        drawn = alpha_bar**0.5 * clean[:, None] + (1 - alpha_bar) ** 0.5 * noise
        target, source = clean[:, None].expand_as(drawn).flatten(0, 1), drawn.flatten(0, 1)
        design = torch.cat([source, torch.ones(len(source), 1, dtype=torch.float64)], dim=1)
        linear = torch.linalg.lstsq(design, target).solution
        expected = torch.cat([x_t[index].flatten(), torch.ones(1, dtype=torch.float64)]) @ linear
        found = WienerScoreMachine(images)(x_t[index : index + 1], levels(alpha_bar))
        assert_close(found.flatten(), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("varied", [True, False])
def test_few_images_are_decomposed_themselves_to_the_same(x_t, varied, monkeypatch):
    images = random_images(6, *SHAPE) if varied else flat(x_t)
    themselves = WienerScoreMachine(images)
    found = themselves(x_t, ALPHA_BAR)
    monkeypatch.setattr(moments, "FEW", DIM)
    covariance = WienerScoreMachine(images)
    assert_close(found, covariance(x_t, ALPHA_BAR), rtol=0, atol=1e-12)
    (mine,), (other,) = themselves._moments.values(), covariance._moments.values()
    assert mine.basis.shape == other.basis.shape == (DIM, 5 if varied else 3)
    assert_close(mine.variance, other.variance, rtol=1e-9, atol=0)


def test_directions_without_variance_keep_the_mean(x_t):
    images = flat(x_t)
    mean = images.mean(dim=0)
    space = torch.linalg.qr((images - mean).flatten(1).T).Q[:, :3]
    found = (WienerScoreMachine(images)(x_t, ALPHA_BAR) - mean).flatten(1)
    assert_close(found @ space @ space.T, found, rtol=0, atol=1e-12)
    assert float(found.norm()) > 0.1


def test_all_components_equal_none_named_and_fewer_do_not(x_t):
    images = random_images(30, *SHAPE)
    whole = WienerScoreMachine(images)(x_t, ALPHA_BAR)
    assert_close(WienerScoreMachine(images, rank=DIM)(x_t, ALPHA_BAR), whole, rtol=0, atol=0)
    assert not torch.allclose(WienerScoreMachine(images, rank=5)(x_t, ALPHA_BAR), whole, atol=1e-2)


def test_the_first_components_are_those_of_most_variance(x_t):
    images = random_images(30, *SHAPE) / 2  # so that what is projected stays in [-1, 1], too
    mean, data = images.mean(dim=0), images.flatten(1) - images.flatten(1).mean(dim=0)
    leading = torch.linalg.svd(data, full_matrices=False).Vh[:5]
    projected = (data @ leading.T @ leading).reshape(images.shape) + mean
    found = WienerScoreMachine(images, rank=5)(x_t, ALPHA_BAR)
    assert_close(found, WienerScoreMachine(projected)(x_t, ALPHA_BAR), rtol=0, atol=1e-10)


def test_a_ridge_is_variance_in_every_direction(x_t):
    images, ridge, eye = flat(x_t), 0.3, torch.eye(DIM, dtype=torch.float64)
    for x, a, found in zip(
        x_t, ALPHA_BAR.tolist(), WienerScoreMachine(images, ridge=ridge)(x_t, ALPHA_BAR), strict=True
    ):
        data = images.flatten(1)
        mean, covariance = data.mean(dim=0), torch.cov(data.T, correction=0) + ridge * eye
        noisy = a * covariance + (1 - a) * eye
        expected = mean + a**0.5 * covariance @ torch.linalg.solve(noisy, x.flatten() - a**0.5 * mean)
        assert_close(found.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_randomised_components_equal_the_exact_ones_where_there_are_no_others(x_t, monkeypatch):
    images = flat(x_t)
    exact = WienerScoreMachine(images)(x_t, ALPHA_BAR)
    monkeypatch.setattr(MomentMachine, "dense", DIM - 1)
    assert_close(WienerScoreMachine(images)(x_t, ALPHA_BAR), exact, rtol=0, atol=1e-10)


def test_randomised_components_are_the_leading_ones(x_t, monkeypatch):
    decay = torch.linspace(0, -12, DIM, dtype=torch.float64).exp()
    images = (random_noise(50, DIM) * decay).reshape(50, *SHAPE)
    images /= images.abs().max()
    exact = WienerScoreMachine(images, rank=4)(x_t, ALPHA_BAR)
    monkeypatch.setattr(MomentMachine, "dense", DIM - 1)
    assert_close(WienerScoreMachine(images, rank=4)(x_t, ALPHA_BAR), exact, rtol=0, atol=1e-6)
    monkeypatch.setattr(MomentMachine, "leading", 4)
    assert_close(WienerScoreMachine(images)(x_t, ALPHA_BAR), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [MeanScoreMachine, WienerScoreMachine])
def test_a_class_is_learned_once(kind, x_t, monkeypatch):
    images, labels = random_images(6, *SHAPE), torch.tensor([0, 1, 0, 1, 0, 1])
    machine, learned, learn = kind(images, labels), [], kind._learn

    def spy(self, label, tick):
        learned.append(label)
        return learn(self, label, tick)

    monkeypatch.setattr(kind, "_learn", spy)
    first = machine(x_t, ALPHA_BAR, torch.tensor([1, 0, 1, 0, 1]))
    assert torch.equal(machine(x_t, ALPHA_BAR, torch.tensor([1, 0, 1, 0, 1])), first)
    assert learned == [0, 1]
    rounded = machine.float()(x_t, ALPHA_BAR, torch.tensor([1, 0, 1, 0, 1]))
    assert learned == [0, 1, 0, 1]
    expected = kind(images.float(), labels)(x_t, ALPHA_BAR, torch.tensor([1, 0, 1, 0, 1]))
    assert torch.equal(rounded, expected)


def test_what_a_kept_result_depends_on_names_the_options():
    images = random_images(6, *SHAPE)
    machines = [WienerScoreMachine(images), WienerScoreMachine(images, rank=2), WienerScoreMachine(images, ridge=0.1)]
    assert (
        len(
            {
                Remembering(machine, lambda parts, make: make())._identity
                for machine in [*machines, MeanScoreMachine(images)]
            }
        )
        == 4
    )


def test_one_image_is_its_own_mean(x_t):
    image = random_images(1, *SHAPE)
    for kind in (MeanScoreMachine, WienerScoreMachine):
        assert_close(kind(image)(x_t, ALPHA_BAR), image.expand_as(x_t), rtol=0, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rank": 0}, "rank must be a whole number, at least 1, not 0"),
        ({"rank": 2.5}, "rank must be a whole number, at least 1, not 2.5"),
        ({"rank": DIM + 1}, "rank must be at most 24, the numbers in an image, not 25"),
        ({"ridge": -0.1}, "ridge must be at least 0 and finite, not -0.1"),
        ({"ridge": float("nan")}, "ridge must be at least 0 and finite, not nan"),
    ],
)
def test_wrong_options_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        WienerScoreMachine(random_images(3, *SHAPE), **options)


def test_a_covariance_that_does_not_fit_into_memory_is_refused(x_t):
    machine = WienerScoreMachine(random_images(3, *SHAPE), memory_budget=4 * 8 * DIM**2 - 1)
    with pytest.raises(InputError, match="memory budget is too small: one covariance"):
        machine(x_t, ALPHA_BAR)
