"""Windows that follow a network's gradients: what they are in their limits, against brute force, and from files."""

import math

import pytest
import torch
from denoisers import SOFT
from reference import soft_posterior_mean
from torch.testing import assert_close

from elslightning.diffusion.schedule import add_noise
from elslightning.machines import MACHINES, PatchMachine
from elslightning.machines.windows import GradientWindows
from elslightning.system.errors import InputError
from elslightning.system.files import write_arrays
from elslightning.testing import levels, random_images, random_noise, relative_error

ALPHA_BAR = levels(0.1, 0.8)
soft_machines = pytest.mark.parametrize("name", SOFT)


@pytest.fixture
def images():
    return random_images(6, 2, 5, 6)


@pytest.fixture
def x_t(images):
    return add_noise(images[:2], random_noise(2, 2, 5, 6), ALPHA_BAR).float().double()


def gradients(seed=0):
    """Of two levels, falling from the centre, and alike in no two directions."""
    uneven = 0.5 + torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    row, column = (torch.arange(side, dtype=torch.float64) - side // 2 for side in (5, 6))
    far = row.square()[:, None] + column.square()
    return uneven * torch.stack([(-far / 6).exp(), (-far / 2).exp()])


def by_hand(gradient, softness, size):
    """The precisions of one level, pixel by pixel."""
    height, width = gradient.shape
    row, column = height // 2, width // 2

    def share(k):
        around = [(row + k, column), (row - k, column), (row, column + k), (row, column - k)]
        known = [gradient[y, x] for y, x in around if 0 <= y < height and 0 <= x < width]
        return float(sum(known) / len(known) / gradient[row, column]) if known else 0.0

    offsets = range(-(size // 2), size // 2 + 1)
    found = [[(share(abs(y)) * share(abs(x))) ** (1 / softness) for x in offsets] for y in offsets]
    return torch.tensor(found, dtype=torch.float64)


# Patches of nine pixels reach further than what was measured; around a circle they would overlap themselves.
@pytest.mark.parametrize(
    ("name", "size", "softness", "response"),
    [
        *((name, 5, *rest) for name in SOFT for rest in ((1.0, 0.0), (2.0, 0.8))),
        *((name, 9, 1.5, 0.0) for name in SOFT if name != "soft_els"),
    ],
)
def test_every_noise_level_has_the_windows_of_its_gradients(name, size, softness, response, images, x_t):
    windows = GradientWindows(ALPHA_BAR, gradients())
    options = {"scales": size, "softness": softness, "response": response}
    x0 = MACHINES[name](images, windows=windows, **options)(x_t, ALPHA_BAR)
    for k, level in enumerate(ALPHA_BAR.tolist()):
        precision = by_hand(gradients()[k], softness, size)
        wanted = soft_posterior_mean(name, x_t[k], level, images, size, softness, response, precision)
        assert_close(x0[k], wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("response", [0.0, 0.8])
@soft_machines
def test_float32_is_near_float64_on_both_paths(name, response, images, x_t, monkeypatch):
    options = {"scales": 5, "softness": 1.5, "response": response, "windows": GradientWindows(ALPHA_BAR, gradients())}
    wanted = MACHINES[name](images, **options)(x_t, ALPHA_BAR)
    for compiled in (True, False):
        monkeypatch.setattr(PatchMachine, "compiled", compiled)
        found = MACHINES[name](images.float(), **options)(x_t.float(), ALPHA_BAR)
        assert (relative_error(found, wanted) < 1e-5).all()


@pytest.mark.parametrize("softness", [0.5, 1.0, 4.0])
@soft_machines
def test_gradients_that_fall_like_a_gaussian_are_a_gaussian_window(name, softness, images, x_t):
    far = (torch.arange(5) - 2).square()[:, None] + (torch.arange(6) - 3).square()
    windows = GradientWindows([0.5], 7 * (-0.5 * far.double()).exp()[None])
    mine = MACHINES[name](images, scales=5, softness=softness, windows=windows)
    gaussian = MACHINES[name](images, scales=5, softness=softness**0.5)
    assert_close(mine(x_t, ALPHA_BAR), gaussian(x_t, ALPHA_BAR), rtol=1e-10, atol=1e-10)


@soft_machines
def test_without_a_limit_to_softness_gradients_do_not_matter(name, images, x_t):
    lonely = torch.zeros(1, 5, 6).index_put((torch.tensor(0), torch.tensor(2), torch.tensor(3)), torch.tensor(1.0))
    for gradient in (gradients()[:1], lonely):
        windows = GradientWindows([0.5], gradient)
        mine = MACHINES[name](images, scales=5, softness=math.inf, windows=windows)
        box = MACHINES[name.removeprefix("soft_")](images, scales=5)
        assert_close(mine(x_t, ALPHA_BAR), box(x_t, ALPHA_BAR), rtol=1e-10, atol=1e-10)


@soft_machines
def test_gradients_are_taken_as_they_are_if_nothing_else_is_said(name, images, x_t):
    windows = GradientWindows(ALPHA_BAR, gradients())
    unsaid = MACHINES[name](images, scales=5, windows=windows)(x_t, ALPHA_BAR)
    assert torch.equal(unsaid, MACHINES[name](images, scales=5, softness=1.0, windows=windows)(x_t, ALPHA_BAR))
    assert not torch.allclose(unsaid, MACHINES[name](images, scales=5)(x_t, ALPHA_BAR), atol=1e-3)


@soft_machines
def test_results_do_not_depend_on_what_else_is_in_the_batch_or_the_sweep(name, images, x_t):
    machine = MACHINES[name](images, scales=3, softness=1.5, windows=GradientWindows(ALPHA_BAR, gradients()))
    together = machine(x_t, ALPHA_BAR)
    for k in range(2):
        assert_close(machine(x_t[k : k + 1], ALPHA_BAR[k : k + 1]), together[k : k + 1], rtol=1e-12, atol=1e-12)
    settings = [
        {"patch_size": 3, "softness": 1.5, "response": 0.0},
        {"patch_size": 5, "softness": 1.0, "response": 0.7},
    ]
    swept = machine.sweep_settings(x_t, ALPHA_BAR, settings)
    assert_close(swept[0], together, rtol=1e-12, atol=1e-12)
    alone = MACHINES[name](images, scales=5, softness=1.0, response=0.7, windows=machine.windows)
    assert_close(swept[1], alone(x_t, ALPHA_BAR), rtol=1e-12, atol=1e-12)


def test_the_file_of_a_run_holds_them(images, x_t, tmp_path):
    path = tmp_path / "receptive_field.npz"
    held = {"alpha_bar": ALPHA_BAR, "gradient": gradients(1), "x0_gradient": gradients().float()}
    write_arrays(path, held)
    read = MACHINES["soft_bbels"](images, scales=5, softness=1.0, windows=path)(x_t, ALPHA_BAR)
    given = GradientWindows(ALPHA_BAR, gradients().float())
    assert torch.equal(read, MACHINES["soft_bbels"](images, scales=5, softness=1.0, windows=given)(x_t, ALPHA_BAR))


def test_a_noise_level_that_they_do_not_cover_is_refused(images, x_t):
    windows = GradientWindows(levels(0.5, 0.6), gradients())
    machine = MACHINES["soft_bbels"](images, scales=3, windows=windows)
    with pytest.raises(InputError, match="alpha_bar"):
        machine(x_t, levels(0.9, 0.1))


@pytest.mark.parametrize(
    "gradient",
    [-gradients(), gradients() * math.nan, torch.zeros(2, 5, 6), torch.ones(2, 0, 6), torch.ones(3, 5, 6)],
    ids=["negative", "not a number", "nothing at the centre", "no pixel", "of other levels"],
)
def test_what_is_no_gradient_is_refused(gradient, tmp_path):
    with pytest.raises(InputError):
        GradientWindows(ALPHA_BAR, gradient)
    write_arrays(tmp_path / "gradients.npz", {"alpha_bar": ALPHA_BAR, "x0_gradient": gradient})
    with pytest.raises(InputError, match=r"gradients\.npz"):
        GradientWindows.read(tmp_path / "gradients.npz")


def test_a_file_of_something_else_is_refused(tmp_path):
    write_arrays(tmp_path / "samples.npz", {"network_20": random_images(2, 1, 4, 4)})
    for path in (tmp_path / "samples.npz", tmp_path / "nowhere.npz"):
        with pytest.raises(InputError, match=r"receptive_field\.npz"):
            GradientWindows.read(path)
