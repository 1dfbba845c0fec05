"""Trained denoisers: backbones that predict eps, v or x0, wrapped by `NetworkDenoiser`; and networks from elsewhere."""

from elslightning.networks.adapter import EpsDenoiser, NetworkDenoiser, ScheduledDenoiser
from elslightning.networks.modules import ModuleDenoiser
from elslightning.networks.official import load_official
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet

__all__ = [
    "EpsDenoiser",
    "ModuleDenoiser",
    "NetworkDenoiser",
    "ResNet",
    "ScheduledDenoiser",
    "UNet",
    "load_official",
]
