"""What trainings leave, read and held against each other."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TRAIN, snapshot

SEVERAL_EPOCHS = [
    *(word for word in TRAIN if "max_epochs" not in word),
    *("trainer.max_epochs=6", "comparison.every_n_epochs=3", "machines=[bbels,is]", "scheduler=one_cycle"),
]
"""A training of six epochs that compares in two of them."""
RESULTS = ("metrics.csv", "scales.json", "calibration.csv", "comparison.csv", "consistency.csv", "summary.json")


def content(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in RESULTS}


def checkpoint(directory: Path) -> dict[str, Any]:
    """The last one."""
    return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)


def metrics(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(one: Any, other: Any) -> None:
    """The same, bit for bit, whatever tensors lie in."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, part in one.items():
            assert_equal(part, other[key])
    elif isinstance(one, list):
        for part, counterpart in zip(one, other, strict=True):
            assert_equal(part, counterpart)
    else:
        assert one == other


def assert_same_training(one: Path, other: Path) -> None:
    """The same weights, averages, moments and results, bit for bit, and the same files."""
    for section in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_equal(checkpoint(one)[section], checkpoint(other)[section])
    assert content(one) == content(other)
    assert snapshot(one).keys() == snapshot(other).keys()


def whole_files(directory: Path) -> None:
    """Whatever is there can be read to its end."""
    for path in directory.rglob("*"):
        if not path.is_file() or ".tmp" in path.name:
            continue
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".csv":
                with path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
                assert all(None not in row and None not in row.values() for row in rows)
            case ".ckpt":
                torch.load(path, weights_only=True)
            case ".npz":
                with np.load(path) as arrays:
                    assert all(arrays[name].size for name in arrays)
            case ".npy":
                assert np.load(path).size
