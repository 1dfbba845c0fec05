"""Machines that remember are the machines themselves, asked once."""

import pytest
import torch
from denoisers import CLASSES, LOCAL, MACHINES, TABLE

from elslightning.machines import ScoreMachine
from elslightning.machines.remembering import RememberingPatches, remembering
from elslightning.measurement.consistency import Scaled, nearest_centres
from elslightning.system.errors import InputError
from elslightning.system.keeping import digest
from elslightning.testing import DenoiserContract, levels, random_images, random_noise

SHAPE = (1, 5, 6)


class Memory(dict):
    """Results by what they were made from, in memory."""

    def __call__(self, parts, make):
        name = digest(parts)
        if name not in self:
            self[name] = make()
        return self[name].clone()


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", MACHINES)
class TestRemembering(DenoiserContract):
    @pytest.fixture
    def build(self, name):
        return lambda images, labels: remembering(MACHINES[name](images, labels, scales=3), Memory())

    def test_noise_level_matters(self, name, denoiser, x_t, labels):
        """But for the mean, which depends on neither the noise nor the noisy image."""
        if name != "mean":
            super().test_noise_level_matters(denoiser, x_t, labels)
            return
        others = denoiser(x_t + 1, self.ALPHA_BAR / 2, labels)
        torch.testing.assert_close(denoiser(x_t, self.ALPHA_BAR, labels), others, rtol=0, atol=0)


@pytest.fixture
def asked(monkeypatch):
    """How often machines have worked anything out."""
    times = []
    work = ScoreMachine._evaluate_same
    monkeypatch.setattr(ScoreMachine, "_evaluate_same", lambda *given: times.append(1) or work(*given))
    return times


@pytest.mark.parametrize("name", MACHINES)
def test_the_same_question_is_worked_out_once(name, asked):
    machine, x_t = MACHINES[name](random_images(4, *SHAPE), scales=TABLE), random_noise(2, *SHAPE)
    found, memory = machine(x_t, levels(0.5, 0.9)), Memory()
    del asked[:]
    for _ in range(2):  # another wrapper, as after an interruption
        assert torch.equal(remembering(machine, memory)(x_t, levels(0.5, 0.9)), found)
    assert len(asked) == 1
    remembering(machine, memory)(x_t, levels(0.5, 0.8))
    remembering(MACHINES[name](random_images(4, *SHAPE, seed=3), scales=TABLE), memory)(x_t, levels(0.5, 0.9))
    assert len(asked) == len(memory) == 3


@pytest.mark.parametrize("name", LOCAL)
def test_sweeps_are_remembered_by_their_patch_sizes(name, asked):
    machine, x_t = LOCAL[name](random_images(4, *SHAPE), scales=1), random_noise(2, *SHAPE)
    found, memory = machine.sweep(x_t, levels(0.5, 0.9), [1, 3]), Memory()
    del asked[:]
    for _ in range(2):
        assert torch.equal(remembering(machine, memory).sweep(x_t, levels(0.5, 0.9), [1, 3]), found)
    assert len(asked) == 1
    assert torch.equal(remembering(machine, memory).sweep(x_t, levels(0.5, 0.9), [3])[0], found[1])
    assert len(asked) == 2
    with pytest.raises(InputError, match="odd"):
        remembering(machine, memory).sweep(x_t, levels(0.5, 0.9), [2])


def test_machines_of_other_classes_labels_and_settings_are_other_machines():
    images, labels, x_t = random_images(6, *SHAPE), torch.arange(6) % CLASSES, random_noise(1, *SHAPE)
    memory = Memory()
    for machine in (
        LOCAL["ls"](images, scales=3),
        LOCAL["bbels"](images, scales=3),
        LOCAL["ls"](images, scales=5),
        MACHINES["is"](images),
    ):
        remembering(machine, memory)(x_t, levels(0.5))
    remembering(LOCAL["ls"](images, labels, scales=3), memory)(x_t, levels(0.5), torch.tensor([1]))
    assert len(memory) == 5
    remembering(LOCAL["ls"](images, scales=3, memory_budget=2**24), memory)(x_t, levels(0.5))
    assert len(memory) == 5
    other = LOCAL["ls"](images, scales=3)
    other._options = lambda: ("sharpness 2",)
    remembering(other, memory)(x_t, levels(0.5))
    assert len(memory) == 6


@pytest.mark.parametrize("name", MACHINES)
def test_it_is_the_machine_in_all_else(name):
    machine = MACHINES[name](random_images(4, *SHAPE), scales=TABLE)
    same, seen = remembering(machine, Memory()), []
    assert not same.learned
    assert same.state_dict() == {}
    assert isinstance(same, RememberingPatches) == isinstance(same, Scaled) == isinstance(machine, Scaled)
    samples = random_images(2, *SHAPE, seed=5)
    assert torch.equal(nearest_centres(samples, same), nearest_centres(samples, machine))
    with same.reporting(seen.append):
        same(random_noise(2, *SHAPE), levels(0.5, 0.5))
    assert seen[-1] == pytest.approx(1)


def test_a_shard_of_a_bank_is_not_remembered():
    machine = LOCAL["ls"](random_images(4, *SHAPE), scales=3)
    machine.process_group = object()
    with pytest.raises(InputError, match="shares its bank"):
        remembering(machine, Memory())
