"""Beyond the trivial: what of a theory's agreement is left when all that simple machines know is taken away."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.diffusion.shapes import Images
from elslightning.machines.registry import BASELINE, TRIVIAL

KNOWN = (*sorted(TRIVIAL), BASELINE)
"""The machines whose samples are taken away: the mean, the best linear denoiser, and recall."""
NOTHING = 1e-6
"""A residual shorter than this share of what it is the residual of is rounding: images are float32."""


def beyond_trivial(prediction: Images, truth: Images, trivial: Sequence[Images]) -> Float64[Tensor, " batch"]:
    """The partial correlation of prediction and truth per pair, given trivial samples of the same noise, in float64.

    Both are regressed over all channels and pixels on a constant and on the trivial samples, by least squares; the
    result is the correlation of what is left. A prediction that is a linear combination of trivial samples gets 0,
    however well it correlates with the truth; so does every prediction of a truth that is one.

    Args:
        prediction, truth: (batch, channel, height, width).
        trivial: samples alike, such as those of the machines `KNOWN`; they may depend on each other.

    >>> import torch
    >>> mean, detail = torch.tensor([[-1.0, -1, 1, 1], [1, -1, 1, -1]]).reshape(2, 1, 1, 2, 2)
    >>> beyond_trivial(3 * mean + 1, mean + detail, [mean]).tolist()
    [0.0]
    >>> beyond_trivial(3 * mean + 2 * detail, mean + detail, [mean]).round(decimals=6).tolist()
    [1.0]
    """
    a, b, *known = (centred(images) for images in (prediction, truth, *trivial))
    if known:
        columns = torch.stack([part / part.norm(dim=1, keepdim=True).clamp(min=1e-300) for part in known], dim=2)
        basis, size, _ = torch.linalg.svd(columns, full_matrices=False)  # (batch, pixel, trivial), (batch, trivial)
        basis = basis * (size > NOTHING)[:, None, :]
        a, b = (_without(part, basis) for part in (a, b))
    return cosine_similarity(a, b, dim=1)


def centred(images: Images) -> Float64[Tensor, "batch pixels"]:
    """Images as vectors whose mean is 0; exactly 0 where all pixels are equal."""
    vectors = images.double().flatten(1).cpu()
    varies = vectors.amax(dim=1, keepdim=True) > vectors.amin(dim=1, keepdim=True)
    return torch.where(varies, vectors - vectors.mean(dim=1, keepdim=True), 0.0)


def _without(vectors: Tensor, basis: Tensor) -> Tensor:
    """What is left of vectors (batch, pixel) beside an orthonormal basis (batch, pixel, direction); 0 for nothing."""
    left = vectors
    for _ in range(2):  # the second time takes away what rounding has left
        left = left - (basis @ (basis.mT @ left[:, :, None]))[:, :, 0]
    telling = left.norm(dim=1, keepdim=True) > NOTHING * vectors.norm(dim=1, keepdim=True)
    return torch.where(telling, left, 0.0)
