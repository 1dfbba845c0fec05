"""Networks trained by the paper's code, written as checkpoints of ours."""

import io
from pathlib import Path

import torch

from elslightning.networks.official import read_official
from elslightning.runs.checkpoints import CHECKPOINT_FORMAT
from elslightning.system.files import new_file


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
    packed = io.BytesIO()  # torch.save on a full disk does not say that it is full
    torch.save(content, packed)
    with new_file(output) as temporary:
        temporary.write_bytes(packed.getbuffer())
    return output
