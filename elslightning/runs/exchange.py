"""Networks from elsewhere and for elsewhere: the paper's code in, safetensors out."""

import io
import json
from pathlib import Path

import torch

from elslightning.networks.official import read_official
from elslightning.runs.checkpoints import CHECKPOINT_FORMAT, PREFIX, open_network
from elslightning.runs.finding import find_checkpoint
from elslightning.system.errors import InputError
from elslightning.system.files import new_file
from elslightning.system.tensorfiles import SUFFIX, write_tensors


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
        "state_dict": {f"{PREFIX}{name}": weight for name, weight in network.state_dict().items()},
        "elslightning": {"format": CHECKPOINT_FORMAT, "config": config},
    }
    packed = io.BytesIO()  # torch.save on a full disk does not say that it is full
    torch.save(content, packed)
    with new_file(output) as temporary:
        temporary.write_bytes(packed.getbuffer())
    return output


def export(path: str | Path, output: str | Path | None = None) -> Path:
    """Writes the network of a checkpoint as safetensors, whole or not at all.

    The weights are those that comparisons use: with weight averaging, the averaged ones. The strings beside them are
    `elslightning`, the format of checkpoints, and `denoiser` and `schedule`, the sections of the configuration as
    JSON, and `sha256`, by which damage is noticed. What the network was trained on, and where, is not in the file.

    Args:
        path: a checkpoint file or a run directory.
        output: the file, ending in .safetensors; None puts it beside the checkpoint.

    Returns:
        The path of the file.

    Raises:
        InputError: naming it, if the checkpoint cannot be read, or the file has another ending, exists already, or
            cannot be written.
    """
    network, config = open_network(path)
    if not config["denoiser"]:
        raise InputError(f"{path} holds a network of diffusers, whose weights are safetensors already")
    output = find_checkpoint(path).with_suffix(SUFFIX) if output is None else Path(output)
    if output.suffix != SUFFIX:
        raise InputError(f"output={output} must end in {SUFFIX}")
    sections = {name: json.dumps(config[name]) for name in ("denoiser", "schedule")}
    with new_file(output) as temporary:
        write_tensors(temporary, network.state_dict(), {"elslightning": str(CHECKPOINT_FORMAT)} | sections)
    return output
