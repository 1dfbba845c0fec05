"""The arguments that all networks have, and what may be wrong with them."""

from typing import Any

from elslightning.diffusion.border import PADDING_MODES
from elslightning.diffusion.prediction import PREDICTIONS
from elslightning.networks.embedding import TIME_EMBEDDINGS
from elslightning.system.checks import flag, is_whole, one_of


def argument_problems(
    channels: Any, padding_mode: Any, conditional: Any, num_classes: Any, time_embedding: Any, prediction: Any
) -> list[str]:
    """What is wrong with them, a line each."""
    problems = [
        *one_of("denoiser.padding_mode", padding_mode, PADDING_MODES),
        *flag("denoiser.conditional", conditional),
        *one_of("denoiser.time_embedding", time_embedding, TIME_EMBEDDINGS),
        *one_of("denoiser.prediction", prediction, PREDICTIONS),
    ]
    if not is_whole(channels, 1):
        problems.append(f"a network needs at least 1 image channel, not {channels!r}")
    if conditional is True and num_classes is None:
        problems.append("denoiser.conditional=true needs a data set with labels (denoiser.num_classes)")
    elif conditional is True and not is_whole(num_classes, 1):
        problems.append(f"a conditional network needs at least 1 class, not {num_classes!r}")
    return problems
