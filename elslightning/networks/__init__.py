"""Trainable denoisers: a backbone that predicts eps, v or x0, wrapped by `NetworkDenoiser`."""

from elslightning.networks.adapter import EpsDenoiser, NetworkDenoiser
from elslightning.networks.official import load_official
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet

__all__ = ["EpsDenoiser", "NetworkDenoiser", "ResNet", "UNet", "load_official"]
