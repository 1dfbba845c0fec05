"""What people give in place of a denoiser, a schedule or noise is answered with what takes it."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

import elslightning as els
from elslightning.networks.resnet import ResNet
from elslightning.system.errors import InputError

NOISE = torch.zeros(1, 1, 4, 4)
UNET = {
    "block_out_channels": (4,),
    "norm_num_groups": 1,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}


class Lucidrains(nn.Module):
    def model_predictions(self, x, t): ...


GIVEN = {
    "a path": (Path("outputs/demo"), "is a path, 'outputs/demo': els.load_network(path) opens it"),
    "diffusers": (
        lambda: diffusers.UNet2DModel(**UNET),
        "is a diffusers UNet2DModel: els.DiffusersDenoiser(unet, scheduler) takes it",
    ),
    "another model": (
        lambda: diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=1),
        "is a diffusers AutoencoderKL: only a UNet2DModel is taken",
    ),
    "lucidrains": (Lucidrains(), "els.ModuleDenoiser(network, interface='lucidrains') takes it"),
    "a backbone": (ResNet(1, width=16), "is a backbone, ResNet: els.NetworkDenoiser(backbone, schedule) takes it"),
    "a module": (
        nn.Conv2d(1, 1, 1),
        "is a plain torch module, Conv2d: els.ModuleDenoiser(module, prediction=..., schedule=...) takes it",
    ),
    "a function": (abs, "is a builtin_function_or_method, and no els.Denoiser"),
}
CALLED = {
    "denoiser": lambda network, schedule, noise: els.ddim(network, noise, schedule, 2),
    "network": lambda network, schedule, noise: els.compare(
        network, {}, schedule, steps=2, network_steps=2, noise=noise
    ),
}
OTHERS = {
    "sample": lambda network, schedule, noise: els.sample(network, noise, schedule, steps=2),
    "calibrate": lambda network, schedule, noise: els.calibrate(
        network, None, schedule, steps=2, patch_sizes=[3], noise=noise
    ),
    "gradient_field": lambda network, schedule, noise: els.gradient_field(network, schedule, steps=2, noise=noise),
}

LEVEL = torch.tensor([0.5], dtype=torch.float64)
OF_MACHINES = {
    "attribute": lambda machine, images: els.attribute(machine, images, LEVEL),
    "attribute_process": lambda machine, images: els.attribute_process(machine, images, els.CosineSchedule(), 2),
    "consistency": lambda machine, images: els.consistency(images, machine),
    "memorisation": lambda machine, images: els.memorisation(machine, images),
}


@pytest.mark.parametrize("call", OF_MACHINES.values(), ids=OF_MACHINES)
def test_what_is_no_machine_is_answered_where_one_is_asked_for(call):
    with pytest.raises(InputError, match="machine is a plain torch module, Conv2d"):
        call(nn.Conv2d(1, 1, 1), NOISE)
    with pytest.raises(InputError, match=r"machine is a path, 'outputs/demo': els\.load_network"):
        call("outputs/demo", NOISE)
    with pytest.raises(InputError, match=r"is a numpy array: torch\.from_numpy"):
        call(els.IdealScoreMachine(NOISE.clamp(-1, 1)), np.zeros((1, 1, 4, 4), dtype=np.float32))


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize(("given", "answer"), GIVEN.values(), ids=GIVEN)
def test_a_network_of_another_kind_is_answered_with_what_takes_it(name, given, answer):
    given = given() if type(given).__name__ == "function" else given
    with pytest.raises(InputError) as raised:
        CALLED[name](given, els.CosineSchedule(), NOISE)
    assert str(raised.value).startswith(f"{name} is ")
    assert answer in str(raised.value)


@pytest.mark.parametrize("call", (CALLED | OTHERS).values(), ids=CALLED | OTHERS)
def test_schedules_and_noise_of_another_kind_are_answered(call):
    network = els.EpsDenoiser(ResNet(1, width=16), els.CosineSchedule())
    for schedule, answer in (
        (diffusers.DDPMScheduler(), "is a diffusers DDPMScheduler: els.DiffusersDenoiser"),
        ("cosine", "is a name, 'cosine'"),
        (None, "is a NoneType, and no els.Schedule"),
    ):
        with pytest.raises(InputError, match=answer):
            call(network, schedule, NOISE)
    with pytest.raises(InputError, match="noise is a numpy array"):
        call(network, els.CosineSchedule(), np.zeros((1, 1, 4, 4)))
    with pytest.raises(InputError, match="is a plain torch module"):
        call(nn.Conv2d(1, 1, 1), els.CosineSchedule(), NOISE)
