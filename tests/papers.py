"""Networks as the paper's code pickles them: classes and attributes of the same names, in modules of the same names.

Their `forward` is written from the paper's description, apart from ours.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn


def cosine_noise_schedule(t):
    """The variance of the noise at time t."""
    return 1 - torch.cos(t / 1.008 * math.pi / 2) ** 2


class EmbeddingModule(nn.Module):
    def __init__(self, fdim, conditional, num_classes, channels):
        super().__init__()
        self.fdim, self.conditional, self.channels = fdim, conditional, channels
        if conditional:
            self.class_embeddings = nn.Embedding(num_classes, fdim)

    def forward(self, t, labels):
        half = self.fdim // 2
        frequencies = torch.tensor([10_000 ** -(k / (half - 1)) for k in range(half)], dtype=t.dtype)
        vector = torch.cat([torch.sin(t[:, None] * frequencies), torch.cos(t[:, None] * frequencies)], dim=1)
        return vector + self.class_embeddings(labels) if self.conditional else vector


def _conv(inputs, outputs, mode):
    return nn.Conv2d(inputs, outputs, 3, padding="same", padding_mode=mode)


class MinimalResNet(nn.Module):
    def __init__(self, channels=1, emb_dim=16, num_layers=2, mode="zeros", conditional=False, num_classes=10):
        super().__init__()
        self.channels, self.emb_dim, self.mode, self.num_layers = channels, emb_dim, mode, num_layers
        self.conditional, self.num_classes = conditional, num_classes
        self.normalization, self.lastksize = None, 3
        self.embedding = EmbeddingModule(emb_dim, conditional, num_classes, channels)
        self.up_projection = _conv(channels, emb_dim, mode)
        self.embs = nn.ModuleList(
            nn.Sequential(nn.Linear(emb_dim, emb_dim), nn.GroupNorm(8, emb_dim), nn.ReLU())
            for _ in range(num_layers + 1)
        )
        self.convs = nn.ModuleList(nn.Sequential(_conv(emb_dim, emb_dim, mode), nn.ReLU()) for _ in range(num_layers))
        self.down_projection = _conv(emb_dim, channels, mode)

    def forward(self, x, t, labels=None):
        vector = self.embedding(t, labels)
        x = self.up_projection(x)
        for i in range(self.num_layers):
            x = x + self.convs[i](x + self.embs[i](vector)[..., None, None])
        return self.down_projection(x + self.embs[self.num_layers](vector)[..., None, None])


class UBlock(nn.Module):
    def __init__(self, inputs, outputs, emb_dim, mode):
        super().__init__()
        self.emb = nn.Sequential(nn.ReLU(), nn.Linear(emb_dim, inputs))
        self.model = nn.Sequential(_conv(inputs, outputs, mode), nn.ReLU(), _conv(outputs, outputs, mode), nn.ReLU())

    def forward(self, x, vector):
        return self.model(x + self.emb(vector)[..., None, None])


class MinimalUNet(nn.Module):
    def __init__(self, channels=1, fsizes=(4, 8, 16), mode="zeros", conditional=False, num_classes=10, emb_dim=32):
        super().__init__()
        self.fsizes, self.channels, self.conditional, self.emb_dim = list(fsizes), channels, conditional, emb_dim
        self.kernel_size, self.lastksize, self.last_norm = 3, 3, False
        self.embedding = EmbeddingModule(emb_dim, conditional, num_classes, channels)
        inputs = [channels, *fsizes]
        down = range(len(fsizes) - 1)
        self.feature_blocks = nn.ModuleList(UBlock(inputs[i], fsizes[i], emb_dim, mode) for i in down)
        self.bottleneck = UBlock(inputs[-2], fsizes[-1], emb_dim, mode)
        self.output_blocks = nn.ModuleList(UBlock(2 * fsizes[i], fsizes[i], emb_dim, mode) for i in down[::-1])
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(fsizes[i + 1], fsizes[i], kernel_size=2, stride=2) for i in down[::-1]
        )
        self.last_emb = nn.Sequential(nn.ReLU(), nn.Linear(emb_dim, fsizes[0]))
        self.output_conv = _conv(fsizes[0], channels, mode)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, x, t, labels=None):
        vector = self.embedding(t, labels)
        kept = []
        for block in self.feature_blocks:
            kept.append(block(x, vector))
            x = self.pool(kept[-1])
        x = self.bottleneck(x, vector)
        for upsample, block in zip(self.upsamples, self.output_blocks, strict=True):
            x = block(torch.cat([kept.pop(), upsample(x)], dim=1), vector)
        return self.output_conv(x + self.last_emb(vector)[..., None, None])


class DDIM(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.in_channels, self.default_imsize = backbone, backbone.channels, 32
        self.noise_schedule = cosine_noise_schedule

    def forward(self, t, x, labels=None):
        return self.backbone(x, t, labels)


MODELS = (DDIM, MinimalResNet, MinimalUNet, UBlock, EmbeddingModule)
for _class in MODELS:
    _class.__module__ = "models"
cosine_noise_schedule.__module__ = "utils.noise_schedules"


@contextmanager
def importable() -> Iterator[None]:
    """Within the block, the paper's modules can be imported."""
    models, schedules = ModuleType("models"), ModuleType("utils.noise_schedules")
    for member in MODELS:
        setattr(models, member.__name__, member)
    schedules.cosine_noise_schedule = cosine_noise_schedule
    with pytest.MonkeyPatch.context() as patch:
        for module in (models, ModuleType("utils"), schedules):
            patch.setitem(sys.modules, module.__name__, module)
        yield


def save(network: object, path: Path, **options: object) -> Path:
    """Saves a whole network, or anything else, as the paper's code does."""
    with importable():
        torch.save(network, path, **options)
    return path
