"""The theory that takes over from the network goes on from the network's own state."""

import pytest
import torch
from denoisers import small_machines
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.measurement.agreement import agreement
from elslightning.measurement.comparing import compare
from elslightning.measurement.handover import hand_over
from elslightning.system.errors import InputError
from elslightning.testing import random_noise

SCHEDULE = CosineSchedule()
STEPS = 4


@pytest.fixture
def noise():
    return random_noise(3, 1, 5, 5)


@pytest.fixture
def machines():
    return small_machines()


def handed(network, machine, noise, after, **options):
    return hand_over(network, machine, "ls", noise, SCHEDULE, STEPS, after, **options)


def test_it_goes_on_along_the_networks_own_process(machines, noise):
    found = handed(machines["bbels"], machines["ls"], noise, [0, 1, 3])
    trajectory = ddim(machines["bbels"], noise, SCHEDULE, STEPS)
    for k, r in found.items():
        end = ddim(machines["ls"], trajectory.x_t[k], SCHEDULE, STEPS, skip=k).samples
        assert_close(r, agreement(end, trajectory.samples)["pearson_r"])
    assert list(found) == [0, 1, 3]


def test_a_machine_that_is_the_network_loses_nothing(machines, noise):
    for r in handed(machines["ls"], machines["ls"], noise, [0, 1, 2, 3]).values():
        assert_close(r, torch.ones(3, dtype=torch.float64))


def test_it_does_not_depend_on_the_batch_size(machines, noise):
    once, twice = (handed(machines["bbels"], machines["ls"], noise, [0, 2], batch_size=n) for n in (3, 2))
    for k in once:
        assert_close(once[k], twice[k])


class WrongOnce(Denoiser):
    """A network that is a machine but for its first step."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine

    def forward(self, x_t, alpha_bar, labels=None):
        x0 = self.machine(x_t, alpha_bar, labels)
        return x0.flip(3) if bool((alpha_bar < SCHEDULE.alpha_bar(torch.tensor(0.9))).all()) else x0


def test_it_shows_in_which_step_agreement_is_lost(machines, noise):
    found = handed(WrongOnce(machines["ls"]), machines["ls"], noise, [0, 1, 2])
    assert found[0].max() < 1 - 1e-6
    for k in (1, 2):
        assert_close(found[k], torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("k", [STEPS, STEPS + 1])
def test_a_theory_without_a_step_is_refused(machines, noise, k):
    with pytest.raises(InputError, match=f"a reverse process of 4 steps cannot leave out the first {k}"):
        handed(machines["ls"], machines["bbels"], noise, [k])


def test_a_comparison_hands_over_to_its_first_machine(machines, noise):
    chosen = {"is": machines["is"], "bbels": machines["bbels"]}
    options = {"steps": STEPS, "network_steps": STEPS, "noise": noise}
    comparison = compare(machines["ls"], chosen, SCHEDULE, handover=[0, 2], **options)
    curve = comparison.handed_over("bbels")
    assert {row["machine"] for row in comparison.handover} == {"bbels"}
    assert_close(curve[0], comparison.values("bbels", STEPS))
    for k, r in handed(machines["ls"], machines["bbels"], noise, [0, 2]).items():
        assert_close(curve[k], r)
        assert comparison.summary()["handover"]["bbels"][str(k)]["median"] == pytest.approx(r.quantile(0.5).item())
    assert "handover" not in compare(machines["ls"], chosen, SCHEDULE, **options).summary()
