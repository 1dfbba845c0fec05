"""Networks trained by the paper's code, written as checkpoints of ours."""

from pathlib import Path

import torch

from elslightning.errors import InputError
from elslightning.files import replacing
from elslightning.networks.official import read_official
from elslightning.training import CHECKPOINT_FORMAT


def import_official(path: str | Path, output: str | Path | None = None) -> Path:
    """Writes the network of a file of the paper's code as a checkpoint, whole or not at all.

    It holds the sections `denoiser` and `schedule` of a configuration; which data the network was trained on, the
    file does not say.

    Args:
        path: the file, see `load_official`.
        output: the checkpoint; None takes the file's name with the ending `.ckpt`.

    Returns:
        The path of the checkpoint.

    Raises:
        InputError: naming it, if the file cannot be read, or the checkpoint exists already or cannot be written.
    """
    network, config = read_official(path)
    output = Path(path).with_suffix(".ckpt") if output is None else Path(output)
    content = {
        "state_dict": {f"denoiser.{name}": weight for name, weight in network.state_dict().items()},
        "elslightning": {"format": CHECKPOINT_FORMAT, "config": config},
    }
    try:
        if output.exists():
            raise InputError(f"output={output} exists already, and nothing is overwritten")
        with replacing(output) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except OSError as error:
        raise InputError(f"cannot write output={output}: {error.strerror}") from error
    return output
