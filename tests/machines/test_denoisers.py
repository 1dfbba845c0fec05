"""Every denoiser of the lists in `contract.py`, held to the contract."""

import pytest
import torch
from contract import CHANNELS, CLASSES, DENOISERS, HEIGHT, MACHINES, TABLE, WIDTH, DenoiserContract, levels
from contract import random_images as images

from elslightning.system.errors import InputError


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("build", DENOISERS.values(), ids=DENOISERS)
class TestDenoisers(DenoiserContract):
    pass


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
