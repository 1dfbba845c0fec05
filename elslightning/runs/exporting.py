"""Trained networks as safetensors: weights and what they belong to, for other programs and other people."""

import json
from pathlib import Path

from elslightning.runs.checkpoints import CHECKPOINT_FORMAT, find_checkpoint, load_network
from elslightning.system.errors import InputError
from elslightning.system.files import new_file
from elslightning.system.tensorfiles import SUFFIX, write_tensors


def export(path: str | Path, output: str | Path | None = None) -> Path:
    """Writes the network of a checkpoint as safetensors, whole or not at all.

    The weights are those that comparisons use: with weight averaging, the averaged ones. The strings beside them are
    `elslightning`, the format of checkpoints, and `denoiser` and `schedule`, the sections of the configuration as
    JSON. What the network was trained on, and where, is not in the file.

    Args:
        path: a checkpoint file or a run directory.
        output: the file, ending in .safetensors; None puts it beside the checkpoint.

    Returns:
        The path of the file.

    Raises:
        InputError: naming it, if the checkpoint cannot be read, or the file has another ending, exists already, or
            cannot be written.
    """
    network, config = load_network(path)
    output = find_checkpoint(path).with_suffix(SUFFIX) if output is None else Path(output)
    if output.suffix != SUFFIX:
        raise InputError(f"output={output} must end in {SUFFIX}")
    sections = {name: json.dumps(config[name]) for name in ("denoiser", "schedule")}
    with new_file(output) as temporary:
        write_tensors(temporary, network.state_dict(), {"elslightning": str(CHECKPOINT_FORMAT)} | sections)
    return output
