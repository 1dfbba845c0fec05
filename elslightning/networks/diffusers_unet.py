"""UNets of diffusers: one that is brought, seen as a posterior mean, and one to train here."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elslightning.diffusion.border import PADDING_MODES
from elslightning.diffusion.shapes import Images, Labels
from elslightning.networks.arguments import argument_problems
from elslightning.networks.diffusers_schedules import said
from elslightning.networks.embedding import TIME_EMBEDDINGS
from elslightning.networks.modules import ModuleDenoiser
from elslightning.system.checks import between, is_whole, raise_for
from elslightning.system.errors import InputError

CLASS = "UNet2DModel"
_MOST_LAYERS = 32


def unet_class() -> Any:
    """diffusers' `UNet2DModel`.

    Raises:
        InputError: if the library is not installed.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise InputError(f"a UNet of diffusers needs it: pip install 'elslightning[diffusers]' ({error})") from error
    return UNet2DModel


def build_unet(config: Mapping[str, Any]) -> Any:
    """The untrained `UNet2DModel` of a configuration; on `torch.device("meta")` without memory for its weights.

    Raises:
        InputError: for what diffusers does not take, and more than 32 layers per block or 32 blocks.
    """
    layers, blocks = config.get("layers_per_block", 2), config.get("block_out_channels", ())
    raise_for(*between("layers_per_block", layers, 1, _MOST_LAYERS))
    if (
        not isinstance(blocks, list | tuple)
        or len(blocks) > _MOST_LAYERS
        or not all(is_whole(one, 1) for one in blocks)
    ):
        raise InputError(f"block_out_channels must be at most {_MOST_LAYERS} numbers of channels, not {blocks!r}")
    kind = unet_class()
    try:
        return kind(**config)
    except Exception as error:  # what diffusers says of arguments comes as anything
        raise InputError(f"diffusers makes no {CLASS} of it: {' '.join(str(error).split())}") from error


class DiffusersDenoiser(ModuleDenoiser):
    """A `UNet2DModel` of diffusers with what its scheduler says of it.

    The scheduler's steps are never taken: they clip. Its group normalisation sees the whole image, so that its
    receptive field is None; how far it looks is measured by its gradients.

    Args:
        unet: the model.
        scheduler: the scheduler it was trained with, or its configuration with `_class_name`.

    Raises:
        InputError: for another model, or a scheduler that is not understood.
    """

    def __init__(self, unet: nn.Module, scheduler: Any) -> None:
        config = unet_config(unet)
        learned = config.get("time_embedding_type") == "learned"
        about = scheduler if isinstance(scheduler, Mapping) else getattr(scheduler, "config", None)
        if not isinstance(about, Mapping):
            raise InputError(f"a scheduler of diffusers is wanted, not {type(scheduler).__name__}")
        if not isinstance(scheduler, Mapping):
            about = {**about, "_class_name": type(scheduler).__name__}
        found = said(about)
        super().__init__(
            unet,
            found.prediction,
            found.schedule,
            interface="diffusers",
            time="whole" if learned else None,
            time_factor=found.time_factor,
            channels=config["in_channels"],
            size=config.get("sample_size"),
            num_classes=config.get("num_class_embeds"),
            sigma_data=found.sigma_data,
        )


def unet_config(unet: Any) -> Mapping[str, Any]:
    """The configuration of a `UNet2DModel`.

    Raises:
        InputError: for another model, and for one that cannot be asked for a posterior mean.
    """
    config = getattr(unet, "config", None)
    if not isinstance(config, Mapping) or CLASS not in {kind.__name__ for kind in type(unet).__mro__}:
        raise InputError(f"a {CLASS} of diffusers is wanted, not {type(unet).__name__}")
    check_unet(config)
    return config


def check_unet(config: Mapping[str, Any]) -> None:
    """Raises InputError for a configuration of a `UNet2DModel` whose output we do not understand."""
    if config.get("time_embedding_type", "positional") not in ("positional", "learned"):
        raise InputError(f"time_embedding_type is {config['time_embedding_type']!r}: positional or learned is read")
    if config.get("class_embed_type") is not None:
        raise InputError(f"class_embed_type is {config['class_embed_type']!r}: labels in a table of classes are read")
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if not is_whole(inputs, 1) or outputs not in (inputs, 2 * inputs):
        raise InputError(f"it takes {inputs!r} channels and returns {outputs!r}: as many are read, or twice as many")


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` of diffusers to train here: a backbone like ours.

    Level i of a schedule of `levels` levels is its time i, as diffusers counts; at t in [0, 1] it is told
    `levels t - 1`. So with schedule=linear or squaredcos it is a network as diffusers' own training makes them.

    Args:
        channels: image channels.
        size: side of the images, a multiple of 2^(blocks - 1); None leaves it free.
        block_out_channels, layers_per_block, down_block_types, up_block_types: as of `UNet2DModel`.
        norm_num_groups, attention_head_dim, dropout: as of `UNet2DModel`, too.
        levels: of the schedule it counts by.
        conditional: whether it takes labels.
        num_classes: number of classes; needed when conditional, ignored otherwise.
        prediction: what it is trained to return: "eps", "v" or "x0".

    Raises:
        InputError: for a value outside these, and if diffusers is not installed.
    """

    receptive_field = None
    """Group normalisation sees the whole image."""

    def __init__(
        self,
        channels: int,
        *,
        size: int | None = None,
        block_out_channels: Sequence[int] = (32, 64),
        layers_per_block: int = 1,
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D"),
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups: int = 8,
        attention_head_dim: int | None = 8,
        dropout: float = 0.0,
        levels: int = 1000,
        conditional: bool = False,
        num_classes: int | None = None,
        prediction: str = "eps",
    ) -> None:
        super().__init__()
        # Zeros around the image, and a time of its own making: what the other networks have a choice of.
        usual = (PADDING_MODES[0], conditional, num_classes, TIME_EMBEDDINGS[0], prediction)
        raise_for(
            *argument_problems(channels, *usual),
            *between("denoiser.levels", levels, 2, 100_000),
            *between("denoiser.norm_num_groups", norm_num_groups, 1, 1024),
        )
        if size is not None and not is_whole(size, 1):
            raise InputError(f"denoiser.size must be a whole number, at least 1, or null, not {size!r}")
        self.channels, self.size, self.levels = channels, size, levels
        self.conditional, self.prediction = conditional, prediction
        config = {
            "sample_size": size,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": tuple(block_out_channels),
            "layers_per_block": layers_per_block,
            "down_block_types": tuple(down_block_types),
            "up_block_types": tuple(up_block_types),
            "norm_num_groups": norm_num_groups,
            "attention_head_dim": attention_head_dim,
            "dropout": dropout,
            "num_class_embeds": num_classes if conditional else None,
        }
        self.unet: nn.Module = build_unet(config)
        self._halvings = len(block_out_channels) - 1

    def check_sides(self, height: int, width: int) -> None:
        """Raises InputError for images whose sides it cannot halve and double again, or that are not of its size."""
        if self.size is not None and (height, width) != (self.size, self.size):
            raise InputError(f"denoiser.size={self.size}, but the images have {height} x {width} pixels")
        if height % 2**self._halvings or width % 2**self._halvings:
            raise InputError(
                f"the sides of images must be multiples of {2**self._halvings} for a UNet of {self._halvings + 1} "
                f"blocks, not {height} x {width}"
            )

    def forward(self, x_t: Images, t: Float[Tensor, " batch"], labels: Labels | None = None) -> Images:
        """The prediction for images (batch, channel, height, width) at times t in [0, 1]."""
        self.check_sides(*x_t.shape[2:])
        level = (t * self.levels - 1).clamp(min=0)
        # The time of a level is one but for its last digits.
        level = torch.where((level - level.round()).abs() < 1e-3, level.round(), level)
        return self.unet(x_t, level, class_labels=labels).sample
