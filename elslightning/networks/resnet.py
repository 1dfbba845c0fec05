"""The paper's ResNet: 3×3 convolutions and nothing that mixes pixels further apart."""

from jaxtyping import Float
from torch import Tensor, nn

from elslightning.diffusion.shapes import Images, Labels
from elslightning.networks.arguments import argument_problems
from elslightning.networks.embedding import TimeClassEmbedding
from elslightning.system.checks import between, is_whole, raise_for


class ResNet(nn.Module):
    """A residual network of 3×3 convolutions that predicts the noise, or v, or the image.

    `h = conv(x)`; for each middle layer l: `h = h + ReLU(conv(h + e_l))`; then `out = conv(h + e_last)`. Each
    e_l is `ReLU(GroupNorm_8(Linear(embedding)))`, a vector broadcast over pixels. No normalisation acts on
    pixels: it would carry information across the image.

    Args:
        channels: image channels.
        width: feature channels, a multiple of 8, at least 16 (256 in the paper).
        num_layers: middle layers (6 in the paper), at most 1000.
        padding_mode: "zeros" or "circular".
        conditional: whether it takes labels.
        num_classes: number of classes; needed when conditional, ignored otherwise.
        time_embedding: "paper" or "mlp", see `TimeClassEmbedding`.
        prediction: what it is trained to return, see `elslightning.diffusion.prediction`: "eps", "v" or "x0".

    Raises:
        InputError: for a value outside these.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 256,
        num_layers: int = 6,
        padding_mode: str = "zeros",
        conditional: bool = False,
        num_classes: int | None = None,
        time_embedding: str = "paper",
        prediction: str = "eps",
    ) -> None:
        super().__init__()
        problems = argument_problems(channels, padding_mode, conditional, num_classes, time_embedding, prediction)
        # With 8 channels a group of the embeddings' normalisation would be one number, always normalised to 0.
        if not is_whole(width, 16) or width % 8:
            problems.append(f"denoiser.width must be a multiple of 8, at least 16, not {width!r}")
        raise_for(*problems, *between("denoiser.num_layers", num_layers, 0, 1000))
        self.channels = channels
        self.conditional = conditional
        self.prediction = prediction
        self.receptive_field = 1 + 2 * (num_layers + 2)
        """Side of the window of x_t that one pixel of the output depends on."""

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding_mode)  # type: ignore[arg-type]

        def head() -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, width), nn.GroupNorm(8, width), nn.ReLU())

        self.embedding = TimeClassEmbedding(width, num_classes if conditional else None, time_embedding)
        self.up_projection = conv(channels, width)
        self.heads = nn.ModuleList(head() for _ in range(num_layers + 1))
        self.convs = nn.ModuleList(nn.Sequential(conv(width, width), nn.ReLU()) for _ in range(num_layers))
        self.down_projection = conv(width, channels)

    def forward(self, x_t: Images, t: Float[Tensor, " batch"], labels: Labels | None = None) -> Images:
        """The prediction for images (batch, channel, height, width) at times t in [0, 1]."""
        embedding = self.embedding(t, labels)
        h = self.up_projection(x_t)
        for head, conv in zip(self.heads, self.convs, strict=False):  # one head more than convolutions
            h = h + conv(h + head(embedding)[:, :, None, None])
        h = h + self.heads[-1](embedding)[:, :, None, None]
        return self.down_projection(h)
