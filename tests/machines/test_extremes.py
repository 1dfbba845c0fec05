"""Numbers at the ends of their ranges: a machine's result is a posterior mean, or the input is refused."""

import pytest
import torch
from denoisers import EXTRAPOLATING, MACHINES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import posterior_mean

from elslightning.machines import PatchMachine
from elslightning.machines.compiled import LARGEST_COMPILED
from elslightning.machines.machine import LARGEST
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise, relative_error

pytestmark = pytest.mark.reliability

SHAPE = (2, 4, 5)
IMAGES = random_images(5, *SHAPE)
ALPHA_BAR = st.one_of(
    st.floats(5e-324, 1.0, exclude_max=True), st.sampled_from([5e-324, 1e-300, 1e-12, 1e-6, 1 - 1e-6, 1 - 2**-53])
)
MAGNITUDE = st.one_of(
    st.floats(0.0, 100.0), st.sampled_from([1e-45, 1e-20, LARGEST_COMPILED, 1e6, 1e10, 1e15, 1e18, 1e25, 2e29])
)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize("name", MACHINES)
@given(
    alpha_bars=st.lists(ALPHA_BAR, min_size=3, max_size=3),
    magnitude=MAGNITUDE,
    seed=st.integers(0, 99),
    size=st.sampled_from([1, 3]),
    double=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_a_machine_returns_a_mean_of_its_images(name, compiled, alpha_bars, magnitude, seed, size, double):
    dtype = torch.float64 if double else torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatchMachine, "compiled", compiled)
        x_t = (random_noise(3, *SHAPE, seed=seed).clamp(-4, 4) * magnitude).to(dtype)
        x0 = MACHINES[name](IMAGES.to(dtype), scales=size)(x_t, levels(*alpha_bars))
    assert bool(x0.isfinite().all())
    if name not in EXTRAPOLATING:
        assert float(x0.abs().max()) <= float(IMAGES.abs().max()) * (1 + 1e-5)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2 * LARGEST])
def test_what_is_no_number_is_refused_by_name(name, value):
    x_t = random_noise(2, *SHAPE).float()
    x_t[1, 0, 2, 3] = value
    machine = MACHINES[name](IMAGES.float(), scales=3)
    with pytest.raises(InputError, match=r"takes noisy images of numbers from -1e\+30 to 1e\+30, not (nan|inf|2e)"):
        machine(x_t, levels(0.5, 0.5))


@pytest.mark.parametrize("name", ["ls", "els", "bbels", "soft_ls", "soft_bbels"])
@pytest.mark.parametrize("magnitude", [1.0, 30.0, 300.0, 0.99 * LARGEST_COMPILED])
def test_up_to_there_the_compiled_loops_give_the_numbers_of_brute_force(name, magnitude, monkeypatch):
    """Of images, too, that little sets apart beside how far the noisy image is from all of them; and in the loops."""
    monkeypatch.setattr(PatchMachine, "_torch_partials", lambda *arguments, **options: pytest.fail("not compiled"))
    images = torch.cat([IMAGES, 0.9 * IMAGES[:1] + 0.01 * IMAGES]).clamp(-1, 1).float()
    machine = MACHINES[name](images, scales=3)
    for alpha_bar in (1e-4, 0.3, 0.9):
        x_t = (random_noise(2, *SHAPE, seed=3).clamp(-1, 1) * magnitude).float()
        expected = [posterior_mean(name, one, alpha_bar, images.double(), 3) for one in x_t.double()]
        error = relative_error(machine(x_t, levels(alpha_bar, alpha_bar)), torch.stack(expected))
        assert float(error.max()) < 1e-4
