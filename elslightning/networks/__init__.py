"""Trainable denoisers: a backbone that predicts noise, wrapped by `EpsDenoiser`."""

from elslightning.networks.eps import EpsDenoiser
from elslightning.networks.official import load_official
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet

__all__ = ["EpsDenoiser", "ResNet", "UNet", "load_official"]
