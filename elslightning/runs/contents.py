"""Contents: comparisons, calibrations and gradients as the rows and arrays of a run's files, and back."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.gradients import SHARES, GradientField, effective_size
from elslightning.measurement.names import NETWORK
from elslightning.runs.layout import CalibrationRow, Row
from elslightning.system.errors import InputError

# A comparison: comparison.csv, consistency.csv, handover.csv, stepwise.csv, samples.npz.


def sample_arrays(comparison: Comparison) -> dict[str, Tensor]:
    """The arrays of samples.npz: of networks `NAME_STEPS`, of machines `NAME`."""
    networks = {NETWORK: comparison.network} | comparison.peers
    images = {_array(name, steps): part for name, taken in networks.items() for steps, part in taken.items()}
    return images | comparison.machines


def as_comparison(
    rows: list[Row], consistency: list[Row], handover: list[Row], stepwise: list[Row], arrays: Mapping[str, Tensor]
) -> Comparison:
    """The comparison of these rows; of images, those that are there."""
    names = dict.fromkeys(row["machine"] for row in rows)
    counts = dict.fromkeys(row["network_steps"] for row in rows)

    def of_network(name: str) -> dict[int, Tensor]:
        return {steps: arrays[_array(name, steps)] for steps in counts if _array(name, steps) in arrays}

    machines = {name: arrays[name] for name in names if name in arrays}
    peers = {name: taken for name in names if name not in machines and (taken := of_network(name))}
    labels = [row.get("label") for row in first_rows(rows)]
    known = torch.tensor(labels) if labels and None not in labels else None
    return Comparison(rows, of_network(NETWORK), machines, known, peers, consistency, handover, stepwise)


def first_rows(rows: Iterable[Row]) -> list[Row]:
    """A row of every pair, in the order of the pairs."""
    return [row for _, row in sorted({row["pair"]: row for row in rows}.items())]


def _array(name: str, steps: int) -> str:
    return f"{name}_{steps}"


def check_images(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Raises InputError unless these are images, (samples, channel, height, width), or labels."""
    for name, array in arrays.items():
        is_labels = name == "labels" and not array.is_floating_point() and array.ndim == 1
        if not is_labels and not (array.is_floating_point() and array.ndim == 4):
            raise InputError(f"{path} is damaged: {name} is not an array of images")


# A calibration: calibration.csv.


def calibration_rows(calibrations: Mapping[str, Calibration]) -> Iterator[Row]:
    """The rows of calibration.csv, by machine, step, setting and sample; columns for what is free in any machine."""
    free = {name for found in calibrations.values() for setting in found.settings for name in setting}
    further = [name for name in CalibrationRow.__annotations__ if name in free and name != PATCH_SIZE]
    for machine, found in calibrations.items():
        for index, alpha_bar in enumerate(found.alpha_bar.tolist()):
            place = {"machine": machine, "step": len(found.alpha_bar) - index, "alpha_bar": alpha_bar}
            for setting, values in zip(found.settings, found.agreement[index].tolist(), strict=True):
                others = {name: _finite(setting.get(name)) for name in further}
                for sample, value in enumerate(values):
                    if not math.isnan(value):
                        size = {PATCH_SIZE: setting.get(PATCH_SIZE)}
                        yield place | size | {"sample": sample, "agreement": value} | others


def _finite(value: float | None) -> float | None:
    return None if value == math.inf else value


def as_calibrations(
    path: Path, rows: Iterable[Row], scales: Mapping[str, ParameterTable], objective: str
) -> dict[str, Calibration]:
    """The calibrations of these rows, by machine; of a machine without scales there is none.

    Raises:
        InputError: naming the file, unless every setting that was tried at a step has every sample; where only the
            patch size is free, every one at every step.
    """
    by_machine: dict[str, list[Row]] = {}
    for row in rows:
        by_machine.setdefault(row["machine"], []).append(row)
    found = {}
    for machine, own in by_machine.items():
        columns = scales[machine].columns if machine in scales else ()
        free = [name for name in CalibrationRow.__annotations__ if name in columns and name in own[0]] or [PATCH_SIZE]
        if PATCH_SIZE in free and any(row[PATCH_SIZE] is None for row in own):
            raise InputError(f"{path} is damaged: it lacks a patch size of {machine}")
        cells: dict[tuple[int, tuple[float, ...], int], Row] = {}
        for row in own:
            values = tuple(math.inf if row.get(name) is None else row[name] for name in free)
            cells[row["step"], values, row["sample"]] = row
        steps = sorted({step for step, _, _ in cells})
        settings = sorted({setting for _, setting, _ in cells})
        samples = sorted({sample for _, _, sample in cells})
        tried = {(step, setting) for step, setting, _ in cells}
        whole = free != [PATCH_SIZE] or len(tried) == len(steps) * len(settings)
        if not whole or len(cells) != len(tried) * len(samples):
            raise InputError(f"{path} is damaged: it lacks the agreement of {machine} at some step, size or sample")
        nothing = {"agreement": math.nan}
        evidence = [
            [[cells.get((step, setting, sample), nothing)["agreement"] for sample in samples] for setting in settings]
            for step in reversed(steps)
        ]
        levels = [next(row["alpha_bar"] for row in own if row["step"] == step) for step in reversed(steps)]
        if machine in scales:
            tensors = torch.tensor(levels, dtype=torch.float64), torch.tensor(evidence, dtype=torch.float64)
            named = tuple(dict(zip(free, values, strict=True)) for values in settings)
            found[machine] = Calibration(scales[machine], tensors[0], named, tensors[1], objective)
    return found


# The network's gradients: receptive_field.csv, receptive_field.npz.


def receptive_field_rows(field: GradientField) -> Iterator[Row]:
    """The rows of receptive_field.csv."""
    sizes = {
        f"{name}_size_{100 * share:.0f}": effective_size(gradient, share).tolist()
        for name, gradient in (("x0", field.x0_gradient), ("eps", field.gradient))
        for share in SHARES
    }
    for index, alpha_bar in enumerate(field.alpha_bar.tolist()):
        columns = {name: column[index] for name, column in sizes.items()}
        yield {"step": len(field.alpha_bar) - index, "alpha_bar": alpha_bar} | columns


def gradient_arrays(field: GradientField) -> dict[str, Tensor]:
    """The arrays of receptive_field.npz, `formal` only if it is known."""
    known = {} if field.formal is None else {"formal": torch.tensor(field.formal)}
    return {"alpha_bar": field.alpha_bar, "gradient": field.gradient, "x0_gradient": field.x0_gradient} | known


def as_gradients(path: Path, arrays: Mapping[str, Tensor]) -> GradientField | None:
    """The gradients of these arrays; None of none.

    Raises:
        InputError: naming the file, if they are something else.
    """
    if not arrays:
        return None
    formal = arrays.get("formal", torch.tensor(0))
    tensors = {name: array for name, array in arrays.items() if name != "formal"}
    shapes = {name: array.shape for name, array in tensors.items()}
    if (
        shapes.keys() != {"alpha_bar", "gradient", "x0_gradient"}
        or not all(array.is_floating_point() and array.numel() for array in tensors.values())
        or len(shapes["gradient"]) != 3
        or shapes["gradient"] != shapes["x0_gradient"]
        or shapes["alpha_bar"] != shapes["gradient"][:1]
        or formal.is_floating_point()
        or formal.ndim > 0
    ):
        raise InputError(f"{path} does not hold the gradients of a network")
    tensors["alpha_bar"] = tensors["alpha_bar"].double()
    return GradientField(**tensors, formal=int(formal) or None)
