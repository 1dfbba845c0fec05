"""Small files that would become large, or a network without an end, are refused before they do."""

import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tiny import CONFIG

from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.runs.checkpoints import load_network
from elslightning.runs.targets import build
from elslightning.system.arrays import read_arrays
from elslightning.system.errors import InputError
from elslightning.system.files import read_config, write_arrays

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("unchecked")]

SECONDS, MEGABYTES = 10, 500
HUGE = 10**9


def peak() -> float:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refused(read: Callable[[], object], path: Path) -> str:
    """What is said, in one line that names the file, soon and without much memory."""
    start, before = time.process_time(), peak()
    with pytest.raises(InputError) as caught:
        read()
    assert time.process_time() - start < SECONDS
    assert peak() - before < MEGABYTES
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bomb(path: Path, megabytes: int, entries: int = 1) -> Path:
    """Zeros, which become shorter by a thousand."""
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({megabytes * 2**18},), }}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(entries):
            with archive.open(f"array_{number}.npy", "w") as file:
                file.write(header + shape.ljust(117).encode() + b"\n")
                for _ in range(megabytes):
                    file.write(bytes(2**20))
    return path


@pytest.mark.parametrize(("megabytes", "entries"), [(260, 1), (52, 5)])
def test_arrays_that_would_fill_the_memory_are_not_unpacked(tmp_path, megabytes, entries):
    path = bomb(tmp_path / "samples.npz", megabytes, entries)
    assert path.stat().st_size < 2_000_000
    assert "would become" in refused(lambda: read_arrays(path), path)


def test_images_of_one_colour_are_read(tmp_path):
    images = torch.ones(2000, 1, 32, 32)
    write_arrays(tmp_path / "samples.npz", {"samples": images})
    assert (tmp_path / "samples.npz").stat().st_size < images.numel() * 4 / 500
    assert torch.equal(read_arrays(tmp_path / "samples.npz")["samples"], images)


def checkpoint(path: Path, **changes: object) -> Path:
    """The file of a small network, whose configuration says something else of it."""
    config = CONFIG | {"denoiser": CONFIG["denoiser"] | changes}
    network = NetworkDenoiser(build(CONFIG["denoiser"]), build(CONFIG["schedule"]))
    weights = {f"denoiser.{name}": weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, "elslightning": {"format": 1, "config": config}}, path)
    return path


UNET = {"_target_": "elslightning.UNet", "width": 16}


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": HUGE},
        {"num_layers": 1000},
        {"width": HUGE},
        {"width": 16 * 10**6, "num_layers": 1000},
        {"channels": HUGE},
        {"conditional": True, "num_classes": HUGE},
        UNET | {"width": HUGE},
        UNET | {"num_levels": HUGE},
        UNET | {"embedding_dim": HUGE},
    ],
    ids=str,
)
def test_a_network_without_an_end_is_not_made(tmp_path, changes):
    changes = {"num_layers": 1} | changes if "_target_" not in changes else changes
    path = checkpoint(tmp_path / "some.ckpt", **changes)
    refused(lambda: load_network(path), path)


def test_a_network_is_not_made_farther_than_its_file_goes(tmp_path, monkeypatch):
    """Whatever makes it: the class may be one that a distribution brings, with bounds of its own or none."""
    made, init = [], torch.nn.Conv2d.__init__
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", lambda *args, **options: made.append(init(*args, **options)))
    path = checkpoint(tmp_path / "some.ckpt", num_layers=900)
    made.clear()
    assert "more than" in refused(lambda: load_network(path), path)
    assert len(made) < 100
    assert len(ResNet(1, width=16, num_layers=900).convs) == 900


@pytest.mark.parametrize(
    "text",
    ["\n".join(f"k{n}: {n}" for n in range(100_000)), f"list: [{','.join(map(str, range(300_000)))}]"],
    ids=["keys", "list"],
)
def test_a_configuration_without_an_end_is_not_built(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert "holds more than 10000 keys and values" in refused(lambda: read_config(path), path)


def test_one_of_thousands_of_betas_is(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"betas: [{','.join(map(str, range(4000)))}]")
    config = read_config(path)
    assert isinstance(config, DictConfig)
    assert len(config.betas) == 4000
