"""The paper's UNet: 3×3 convolutions on ever coarser grids, and back."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elslightning.diffusion.shapes import Images, Labels
from elslightning.networks.arguments import argument_problems
from elslightning.networks.embedding import TimeClassEmbedding
from elslightning.system.checks import between, is_whole, raise_for, whole
from elslightning.system.errors import InputError


class SelfAttention(nn.Module):
    """Every position looks at every other one: `h + W softmax(q·k / sqrt(features)) v`, one head, residual.

    q, k and v are linear in h; positions are not encoded, so it commutes with every shift. Nothing is normalised.
    W starts at 0: an untrained network is the one without attention.

    Args:
        features: channels of h.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.queries_keys_values = nn.Conv2d(features, 3 * features, 1)
        self.projection = nn.Conv2d(features, features, 1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]

    def forward(self, h: Float[Tensor, "batch feature height width"]) -> Float[Tensor, "batch feature height width"]:
        q, k, v = self.queries_keys_values(h).flatten(2).mT.chunk(3, dim=2)  # each (batch, position, feature)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return h + self.projection(seen.mT.unflatten(2, h.shape[2:]))


class Block(nn.Module):
    """`x + Linear(ReLU(embedding))`, broadcast over pixels, then twice conv3×3 and ReLU; then attention, if any."""

    def __init__(self, inputs: int, outputs: int, dim: int, padding_mode: str, attention: bool) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(dim, inputs))
        self.layers = nn.Sequential(
            _conv(inputs, outputs, padding_mode), nn.ReLU(), _conv(outputs, outputs, padding_mode), nn.ReLU()
        )
        self.attention = SelfAttention(outputs) if attention else None

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], embedding: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch outputs height width"]:
        h = self.layers(x + self.head(embedding)[:, :, None, None])
        return h if self.attention is None else self.attention(h)


class UNet(nn.Module):
    """A UNet that predicts the noise, or v, or the image.

    Level l has `width · 2^l` features on a grid 2^l times coarser than the image. On the way down, a `Block` per
    level but the last, each followed by max-pooling over 2×2; a block on the last level; on the way up, a 2×2
    transposed convolution of stride 2, the level's skip put before it, and another block. Then
    `out = conv(h + Linear(ReLU(embedding)))`. No normalisation acts on pixels: it would carry information across
    the image. Pooling has it that shifts commute, with circular padding, only by multiples of `stride`.

    Args:
        channels: image channels.
        width: features of the first level (64 in the paper).
        num_levels: levels (3 in the paper), at most 16.
        padding_mode: "zeros" or "circular".
        conditional: whether it takes labels.
        num_classes: number of classes; needed when conditional, ignored otherwise.
        time_embedding: "paper" or "mlp", see `TimeClassEmbedding`.
        embedding_dim: length of the embedding of time and class; even, at least 4.
        attention: levels whose blocks end with `SelfAttention`, from 0, the image's own, to `num_levels - 1`, the
            coarsest; none in the paper's UNet.
        prediction: what it is trained to return, see `elslightning.diffusion.prediction`: "eps", "v" or "x0".

    Attributes:
        stride: sides of images must be multiples of `2^(num_levels - 1)`.
        receptive_field: odd side of the smallest window centred at a pixel of the output that holds every pixel of
            x_t it depends on, wherever the pixel lies: pooling makes the dependence lopsided, in a way that repeats
            every `stride` pixels, and this is the farthest that any of them sees. None with attention: the image.

    Raises:
        InputError: for a value outside these.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        num_levels: int = 3,
        padding_mode: str = "zeros",
        conditional: bool = False,
        num_classes: int | None = None,
        time_embedding: str = "paper",
        embedding_dim: int = 256,
        attention: Sequence[int] = (),
        prediction: str = "eps",
    ) -> None:
        super().__init__()
        problems = [
            *argument_problems(channels, padding_mode, conditional, num_classes, time_embedding, prediction),
            *whole("denoiser.width", width, 1),
            *between("denoiser.num_levels", num_levels, 1, 16),
        ]
        if not is_whole(embedding_dim, 4) or embedding_dim % 2:
            problems.append(f"denoiser.embedding_dim: an even length of at least 4, not {embedding_dim!r}")
        levels = () if between("", num_levels, 1, 16) else range(num_levels)
        named = isinstance(attention, list | tuple | range)
        if levels and not (named and all(is_whole(level) and level in levels for level in attention)):
            shown = list(attention) if named else attention
            problems.append(f"denoiser.attention must name levels from 0 to {num_levels - 1}, not {shown!r}")
        raise_for(*problems)
        self.channels = channels
        self.conditional = conditional
        self.prediction = prediction
        self.stride = 2 ** (num_levels - 1)
        self.receptive_field = None if attention else _receptive_field(num_levels)

        features = [width * 2**level for level in range(num_levels)]
        inputs = [channels, *features]  # of every level's first block
        pooled = range(num_levels - 1)

        def block(inputs: int, level: int) -> Block:
            return Block(inputs, features[level], embedding_dim, padding_mode, level in attention)

        self.embedding = TimeClassEmbedding(embedding_dim, num_classes if conditional else None, time_embedding)
        self.down_blocks = nn.ModuleList(block(inputs[level], level) for level in pooled)
        self.bottleneck = block(inputs[num_levels - 1], num_levels - 1)
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(features[level + 1], features[level], 2, stride=2) for level in reversed(pooled)
        )
        self.up_blocks = nn.ModuleList(block(2 * features[level], level) for level in reversed(pooled))
        self.last_head = nn.Sequential(nn.ReLU(), nn.Linear(embedding_dim, width))
        self.output_conv = _conv(width, channels, padding_mode)
        self.pool = nn.MaxPool2d(2)

    def check_sides(self, height: int, width: int) -> None:
        """Raises InputError unless images of these sides can be halved often enough."""
        if height % self.stride or width % self.stride:
            raise InputError(
                f"a UNet of {len(self.down_blocks) + 1} levels takes images whose sides are multiples of "
                f"{self.stride}, not {height} x {width}"
            )

    def forward(self, x_t: Images, t: Float[Tensor, " batch"], labels: Labels | None = None) -> Images:
        """The prediction for images (batch, channel, height, width) at times t in [0, 1].

        Raises:
            InputError: for sides that are not multiples of `stride`.
        """
        self.check_sides(*x_t.shape[2:])
        embedding = self.embedding(t, labels)
        h, skips = x_t, []
        for block in self.down_blocks:
            h = block(h, embedding)
            skips.append(h)
            h = self.pool(h)
        h = self.bottleneck(h, embedding)
        for upsample, block, skip in zip(self.upsamples, self.up_blocks, reversed(skips), strict=True):
            h = block(torch.cat([skip, upsample(h)], dim=1), embedding)
        return self.output_conv(h + self.last_head(embedding)[:, :, None, None])


def _conv(inputs: int, outputs: int, padding_mode: str) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding_mode)  # type: ignore[arg-type]


def _receptive_field(num_levels: int) -> int:
    """The side `UNet.receptive_field` of a UNet without attention."""
    farthest = 0
    for position in range(2 ** (num_levels - 1)):
        first, last = _dependence(position - 1, position + 1, 0, num_levels)
        farthest = max(farthest, position - first, last - position)
    return 1 + 2 * farthest


def _dependence(first: int, last: int, level: int, num_levels: int) -> tuple[int, int]:
    """The first and last index of a level's input, along one axis, that outputs `first` … `last` depend on."""
    first, last = first - 2, last + 2  # the block on the way up, or the coarsest level's only one
    if level == num_levels - 1:
        return first, last
    pooled_first, pooled_last = _dependence(first // 2, last // 2, level + 1, num_levels)
    # The block on the way down; the skip adds nothing, for the coarser levels see as far and farther.
    return 2 * pooled_first - 2, 2 * pooled_last + 1 + 2
