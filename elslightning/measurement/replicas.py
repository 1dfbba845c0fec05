"""Replicas: what the draws of an approximate machine do to its samples, and to their agreement with a network."""

from jaxtyping import Float
from torch import Tensor

from elslightning.diffusion.shapes import Images
from elslightning.measurement.agreement import agreement

LEAST_R = 0.5
"""Below this r between replicas there is no telling what an exact machine would agree with."""


def against(samples: Images, replica: Images, r: Float[Tensor, " pairs"]) -> dict[str, Float[Tensor, " pairs"]]:
    """What two samples of the same noise with other draws say of each other, pair by pair.

    Both differ from the exact sample by errors that know nothing of each other. So the root mean square error of either
    is that of their difference over sqrt(2), `sample_error`; and where r between them is `replica_r`, that of either
    with the exact sample is about sqrt(replica_r), by which the agreement with a network is lowered: `corrected_r` is
    r / sqrt(replica_r), Spearman's correction for attenuation, and at most 1.

    Args:
        samples, replica: (pairs, channel, height, width).
        r: Pearson r of `samples` with the network.
    """
    error = ((samples.double() - replica.double()).flatten(1).square().mean(dim=1) / 2).sqrt().cpu()
    between = agreement(samples, replica)["pearson_r"].double().cpu()
    corrected = (r / between.clamp(min=LEAST_R).sqrt()).clamp(max=1.0)
    return {"sample_error": error, "replica_r": between, "corrected_r": corrected}
