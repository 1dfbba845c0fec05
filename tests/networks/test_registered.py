"""Backbones of other distributions, by the entry points with which they register."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from torch import nn

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks import registered
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.registered import GROUP, RegisteredNetwork
from elslightning.runs.targets import build, own
from elslightning.system.errors import InputError


class Tiny(nn.Module):
    conditional = False
    prediction = "x0"

    def __init__(self, channels, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 1))

    def forward(self, x, t, labels=None):
        return self.layers(x) * t[:, None, None, None]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """A distribution that registers two names."""
    module = ModuleType("other_peoples")
    module.Tiny, module.nothing = Tiny, lambda channels: 5
    monkeypatch.setitem(sys.modules, "other_peoples", module)
    points = [
        EntryPoint(name, f"other_peoples:{where}", GROUP) for name, where in (("tiny", "Tiny"), ("no", "nothing"))
    ]
    monkeypatch.setattr(registered, "entry_points", lambda group: points if group == GROUP else [])


def test_a_registered_backbone_is_built_by_its_name_from_a_file():
    section = {"_target_": "elslightning.RegisteredNetwork", "name": "tiny", "channels": 2, "options": {"width": 3}}
    backbone = build(own(section, "the file"))
    denoiser = NetworkDenoiser(backbone, CosineSchedule())
    assert (denoiser.prediction, denoiser.conditional, denoiser.receptive_field) == ("x0", False, None)
    x_t = torch.randn(2, 2, 4, 4)
    alpha_bar = torch.tensor([0.3, 0.6], dtype=torch.float64)
    t = CosineSchedule().time(alpha_bar).float()
    with torch.no_grad():
        assert torch.equal(denoiser(x_t, alpha_bar), backbone.network(x_t, t))
    assert backbone.network.layers[0].out_channels == 3


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("other", {}, r"denoiser.name=other is none of elslightning.denoisers \(no, tiny\): install what brings it"),
        ("no", {}, "denoiser.name=no is a int, and no torch module"),
        ("tiny", {"depth": 3}, "denoiser.name=tiny cannot be made: .*unexpected keyword argument 'depth'"),
    ],
)
def test_what_is_not_registered_or_no_network_is_refused(name, options, error):
    with pytest.raises(InputError, match=error):
        RegisteredNetwork(name, 1, options)
