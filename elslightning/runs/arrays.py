"""The arrays of a run directory: samples, and the gradients of the network."""

from pathlib import Path

import numpy as np
import torch

from elslightning.measurement.gradients import GradientField
from elslightning.system.errors import InputError


def read_samples(path: Path) -> dict[str, np.ndarray]:
    """The arrays of samples.npz by name: images, and the labels of a run of `sample`; none if it is not there.

    Raises:
        InputError: naming the file, if it cannot be read or holds something else.
    """
    arrays = _arrays(path)
    for name, array in arrays.items():
        is_labels = name == "labels" and array.dtype.kind in "iu" and array.ndim == 1
        if not is_labels and not (array.dtype.kind == "f" and array.ndim == 4):
            raise InputError(f"{path} is damaged: {name} is not an array of images")
    return arrays


def read_gradients(path: Path) -> GradientField | None:
    """The gradients of receptive_field.npz; None if it is not there.

    Raises:
        InputError: naming the file, if it cannot be read or holds something else.
    """
    if not path.is_file():
        return None
    arrays = _arrays(path)
    formal = arrays.pop("formal", np.array(0))
    shapes = {name: array.shape for name, array in arrays.items()}
    if (
        shapes.keys() != {"alpha_bar", "gradient", "x0_gradient"}
        or any(array.dtype.kind != "f" or array.size == 0 for array in arrays.values())
        or len(shapes["gradient"]) != 3
        or shapes["gradient"] != shapes["x0_gradient"]
        or shapes["alpha_bar"] != shapes["gradient"][:1]
        or (formal.dtype.kind, formal.shape) != ("i", ())
    ):
        raise InputError(f"{path} does not hold the gradients of a network")
    # Of one type, as numpy may hold numbers in a width or an order of bytes that torch does not have.
    tensors = {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}
    return GradientField(**tensors, formal=int(formal) or None)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except Exception as error:  # damaged bytes make numpy and zipfile raise nearly anything
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} is damaged: {name} is not an array")
    return arrays
