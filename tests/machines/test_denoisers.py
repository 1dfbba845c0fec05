"""Every denoiser of the lists in `denoisers.py`, held to the contract."""

import pytest
import torch
from denoisers import CHANNELS, CLASSES, DENOISERS, HEIGHT, MACHINES, TABLE, WIDTH

from elslightning.machines import MeanScoreMachine
from elslightning.system.errors import InputError
from elslightning.testing import DenoiserContract, levels
from elslightning.testing import random_images as images


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("build", DENOISERS.values(), ids=DENOISERS)
class TestDenoisers(DenoiserContract):
    pass


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("build", [MeanScoreMachine], ids=["mean"])
class TestMean(DenoiserContract):
    def test_noise_level_matters(self, denoiser, x_t, labels):
        """It does not, nor does the noisy image."""
        others = denoiser(x_t + 1, self.ALPHA_BAR / 2, labels)
        torch.testing.assert_close(denoiser(x_t, self.ALPHA_BAR, labels), others, rtol=0, atol=0)


@pytest.fixture(params=MACHINES.values(), ids=MACHINES)
def machine(request):
    return request.param(images(4, CHANNELS, HEIGHT, WIDTH), torch.arange(4) % CLASSES, scales=TABLE)


def test_machine_has_nothing_to_train_or_save(machine):
    assert machine.state_dict() == {}
    assert list(machine.parameters()) == []
    assert not machine.learned


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(HEIGHT + 1, WIDTH), (HEIGHT, WIDTH - 1), (WIDTH, HEIGHT)])
def test_machine_refuses_images_of_another_size(machine, shape):
    with pytest.raises(InputError, match="not 2 x {} x {}".format(*shape)):
        machine(images(1, CHANNELS, *shape), levels(0.5), torch.tensor([0]))
