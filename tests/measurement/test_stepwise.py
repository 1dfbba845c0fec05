"""Agreement at the network's own states."""

import pytest
import torch
from denoisers import small_machines
from torch.testing import assert_close

from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.measurement.comparing import compare
from elslightning.measurement.stepwise import at_states
from elslightning.testing import random_noise

SCHEDULE = CosineSchedule()
STEPS = 4


@pytest.fixture
def noise():
    return random_noise(3, 1, 5, 5)


@pytest.fixture
def machines():
    return small_machines()


def test_it_is_measured_at_every_state_of_the_network(machines, noise):
    levels, found = at_states(machines["is"], machines, noise, SCHEDULE, STEPS)
    path = ddim(machines["is"], noise, SCHEDULE, STEPS)
    assert_close(levels, path.alpha_bar[:-1])
    for name, machine in machines.items():
        for step, level in enumerate(levels):
            alpha_bar, x_t = level.expand(3), path.x_t[step]
            x0 = machine(x_t, alpha_bar)
            pairs = [(eps_from_x0(x_t, one, alpha_bar).double().flatten(1)) for one in (x0, path.x0[step])]
            cosine = torch.stack([(a @ b) / (a.norm() * b.norm()) for a, b in zip(*pairs, strict=True)])
            assert_close(found[name]["eps_cosine"][step], cosine)
            error = (x0 - path.x0[step]).double().square().mean(dim=(1, 2, 3))
            assert_close(found[name]["x0_mse"][step], error)


def test_a_network_is_at_no_distance_from_itself(machines, noise):
    _, found = at_states(machines["ls"], {"ls": machines["ls"]}, noise, SCHEDULE, STEPS)
    assert_close(found["ls"]["eps_cosine"], torch.ones(STEPS, 3, dtype=torch.float64))
    assert not found["ls"]["x0_mse"].any()


def test_it_does_not_depend_on_the_batch_size(machines, noise):
    (levels, once), (again, twice) = (
        at_states(machines["bbels"], machines, noise, SCHEDULE, STEPS, batch_size=n) for n in (3, 2)
    )
    assert torch.equal(levels, again)
    for name, measures in once.items():
        for measure, values in measures.items():
            assert_close(values, twice[name][measure])


def test_a_comparison_holds_it_where_it_is_asked_for(machines, noise):
    chosen = {name: machines[name] for name in ("bbels", "is")}
    options = {"steps": STEPS, "network_steps": 2, "noise": noise}
    comparison = compare(machines["ls"], chosen, SCHEDULE, stepwise=True, **options)
    levels, found = at_states(machines["ls"], chosen, noise, SCHEDULE, STEPS)
    for name in chosen:
        for measure in ("eps_cosine", "x0_mse"):
            at, values = comparison.along(name, measure)
            assert torch.equal(at, levels)
            assert_close(values, found[name][measure])
    assert [part.numel() for part in comparison.along("wiener", "x0_mse")] == [0, 0]
    assert compare(machines["ls"], chosen, SCHEDULE, **options).stepwise == []
