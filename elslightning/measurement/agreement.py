"""Agreement of two images, measure by measure, and the median over pairs with its interval."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.diffusion.shapes import Images

MEASURES = ("pearson_r", "pearson_r2", "r2_score", "cosine", "mse")
_DRAWN = 2**20
"""Values that are resampled at once, in bootstraps."""


def agreement(prediction: Images, truth: Images) -> dict[str, Float[Tensor, " batch"]]:
    """Five measures of agreement per pair, over all channels and pixels, in float64.

    `pearson_r` is what the paper's evaluation computes and its tables call r²; `pearson_r2` is its square;
    `r2_score` is the coefficient of determination with `truth` (the network) as truth; `cosine` does not
    subtract means; `mse` is the mean squared error. An image without variance predicts nothing and has no
    direction: its `pearson_r` is 0, and `r2_score` is 0 where the truth has none.

    Args:
        prediction, truth: (batch, channel, height, width).

    >>> import torch
    >>> a = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 2, 2)
    >>> {name: round(value.item(), 3) for name, value in agreement(2 * a, a).items()}
    {'pearson_r': 1.0, 'pearson_r2': 1.0, 'r2_score': -1.8, 'cosine': 1.0, 'mse': 3.5}
    """
    a, b = prediction.double().flatten(1).cpu(), truth.double().flatten(1).cpu()
    centred_a, centred_b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    r = cosine_similarity(centred_a, centred_b, dim=1)
    squared_error = (a - b).square()
    varies = b.amax(dim=1) > b.amin(dim=1)
    r2_score = torch.where(varies, 1 - squared_error.sum(dim=1) / centred_b.square().sum(dim=1), 0.0)
    values = (r, r.square(), r2_score, cosine_similarity(a, b, dim=1), squared_error.mean(dim=1))
    return dict(zip(MEASURES, values, strict=True))


def median_interval(
    values: Float[Tensor, " pairs"], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float, float]:
    """The median and its bootstrap percentile interval, as (median, low, high).

    The median of an even number of values is the mean of the middle two. Resamples are drawn one after the other, so
    many at once that memory does not depend on the number of values, which changes no number.
    """
    low, high = _percentiles(values, _medians, level, resamples, seed)
    return float(values.quantile(0.5)), low, high


def mean_interval(
    values: Float[Tensor, " units"], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean, such as a share, and its bootstrap percentile interval, as (mean, low, high); see `median_interval`."""
    low, high = _percentiles(values.double(), _means, level, resamples, seed)
    return float(values.double().mean()), low, high


def _percentiles(
    values: Tensor, statistic: Callable[..., Tensor], level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The ends of the interval that holds a share `level` of a statistic of resamples."""
    plain = values.detach().cpu().contiguous()
    at_once = max(1, _DRAWN // len(values))
    return _resampled(plain.numpy().tobytes(), plain.dtype, statistic, level, resamples, at_once, seed)


@lru_cache(256)
def _resampled(
    content: bytes,
    dtype: torch.dtype,
    statistic: Callable[..., Tensor],
    level: float,
    resamples: int,
    at_once: int,
    seed: int,
) -> tuple[float, float]:
    """The same of the bytes of the values, with `at_once` resamples in a part: a run that prints, writes and reports
    asks for it again and again."""
    values = torch.frombuffer(bytearray(content), dtype=dtype)
    found = torch.cat([statistic(values, draws) for draws in _draws(len(values), resamples, at_once, seed)])
    tail = (1 - level) / 2
    return float(found.quantile(tail)), float(found.quantile(1 - tail))


def _draws(units: int, resamples: int, at_once: int, seed: int) -> Iterator[Int[Tensor, "_ units"]]:
    """Which values are in every resample, part by part."""
    if at_once >= resamples:
        yield _few_draws(units, resamples, seed)
        return
    generator = torch.Generator().manual_seed(seed)
    for n in range(0, resamples, at_once):
        yield torch.randint(units, (min(at_once, resamples - n), units), generator=generator)


@lru_cache(2)
def _few_draws(units: int, resamples: int, seed: int) -> Int[Tensor, "resamples units"]:
    """All in one part, which are the same for all measures of the same pairs."""
    return torch.randint(units, (resamples, units), generator=torch.Generator().manual_seed(seed))


def _medians(values: Float[Tensor, " units"], draws: Int[Tensor, "resamples units"]) -> Float[Tensor, " resamples"]:
    return _taken(values, draws).quantile(0.5, dim=1)


def _means(values: Float[Tensor, " units"], draws: Int[Tensor, "resamples units"]) -> Float[Tensor, " resamples"]:
    return _taken(values, draws).mean(dim=1)


def _taken(values: Float[Tensor, " units"], draws: Int[Tensor, "resamples units"]) -> Float[Tensor, "resamples units"]:
    return values.index_select(0, draws.flatten()).reshape(draws.shape)  # sooner than values[draws]
