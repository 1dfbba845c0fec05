"""Files of safetensors: named tensors and a few strings, and nothing that could run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from elslightning.system.errors import InputError

SUFFIX = ".safetensors"
CHECKSUM = "sha256"
"""The string with the checksum of all others and of the tensors; files of earlier versions have none."""


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors by name, and strings beside them, with their bits as they are, and a checksum of both."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {**metadata, CHECKSUM: checksum(tensors, metadata)})
    Path(path).write_bytes(content)  # its own function would make a file that only its owner can read


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its strings.

    Raises:
        InputError: naming the file, if it is missing, damaged or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, strings = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # damaged bytes may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as safetensors: {reason}") from error
    wanted = strings.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(tensors, strings):
        raise InputError(f"{path} is damaged: its tensors or strings do not have its checksum")
    return tensors, strings


def checksum(tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> str:
    """SHA-256 of tensors, on the CPU, and of strings, in the order of their names."""
    sha = hashlib.sha256()
    for name, text in sorted(strings.items()):
        sha.update(f"{name!r}: {text!r};".encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name!r}: {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
