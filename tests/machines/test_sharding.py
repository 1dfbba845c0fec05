"""A bank split over two processes gives what the whole bank gives."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import victims
from torch import Tensor

from elslightning.machines import (
    BoundaryBrokenScoreMachine,
    EquivariantLocalScoreMachine,
    EquivariantScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    MeanScoreMachine,
    PCALocalityScoreMachine,
    SmoothedScoreMachine,
    SoftBoundaryBrokenScoreMachine,
    SoftEquivariantLocalScoreMachine,
    TemperedScoreMachine,
    WienerScoreMachine,
)
from elslightning.machines.machine import ScoreMachine
from elslightning.system.errors import InputError

MACHINES = {
    "is": (IdealScoreMachine, {}),
    "es": (EquivariantScoreMachine, {}),
    "ls": (LocalScoreMachine, {"scales": 3}),
    "els": (EquivariantLocalScoreMachine, {"scales": 3}),
    "bbels": (BoundaryBrokenScoreMachine, {"scales": 3}),
    "soft_bbels": (SoftBoundaryBrokenScoreMachine, {"scales": 3, "softness": 1.2, "response": 0.8}),
    "soft_els": (SoftEquivariantLocalScoreMachine, {"scales": 3, "softness": 1.2, "response": 0.0}),
    "mean": (MeanScoreMachine, {}),
    "wiener": (WienerScoreMachine, {}),
    "pca": (PCALocalityScoreMachine, {"threshold": 0.4}),
    "scfdm": (SmoothedScoreMachine, {"smoothing": 0.5, "draws": 3}),
    "is_tempered": (TemperedScoreMachine, {"temperature": 1.7}),
}
# Label 2 lives in the second shard only, and the first shard is larger.
LABELS = torch.tensor([0, 1, 0, 1, 0, 0, 1, 2])
FIRST = 6


def bank() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images, noisy images with a label each, and their noise levels, in float64."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(LABELS), 1, 6, 5, generator=generator, dtype=torch.float64) * 2 - 1
    x_t = torch.randn(3, 1, 6, 5, generator=generator, dtype=torch.float64)
    return images, x_t, torch.tensor([0, 1, 2]), torch.tensor([0.2, 0.9, 0.999], dtype=torch.float64)


def machine(name: str, images: Tensor, labels: Tensor | None, **options: object) -> ScoreMachine:
    kind, arguments = MACHINES[name]
    return kind(images, labels, **arguments, **options)


def evaluate(rank: int, folder: str) -> None:
    """What one of two processes finds, saved for the test to look at."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    # Through a file: a port that is free now may be taken when it is wanted.
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    images, x_t, labels, alpha_bar = bank()
    shard = slice(None, FIRST) if rank == 0 else slice(FIRST, None)
    nothing = images[:0] if rank == 0 else images
    group = dist.group.WORLD
    found: dict[str, object] = {}
    for name in MACHINES:
        for dtype in (torch.float32, torch.float64):
            sharded = machine(name, images[shard].to(dtype), LABELS[shard], process_group=group)
            found[f"{name} {dtype} labels"] = sharded(x_t.to(dtype), alpha_bar, labels)
            whole = machine(name, nothing.to(dtype), None, process_group=group)
            found[f"{name} {dtype} empty"] = whole(x_t.to(dtype), alpha_bar)
        with pytest.raises(InputError) as refused:
            sharded(x_t, alpha_bar, torch.tensor([0, 7, 0]))
        found[f"{name} refused"] = str(refused.value)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("shards")
    victims.context()
    mp.start_processes(evaluate, args=(str(folder),), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("name", MACHINES)
def test_uneven_shards_give_what_the_whole_bank_gives(
    found: list[dict[str, object]], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    images, x_t, labels, alpha_bar = bank()
    expected = machine(name, images, LABELS)(x_t, alpha_bar, labels)
    for rank in (0, 1):
        torch.testing.assert_close(found[rank][f"{name} {dtype} labels"].double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MACHINES)
def test_an_empty_shard_adds_nothing(found: list[dict[str, object]], name: str) -> None:
    images, x_t, _, alpha_bar = bank()
    expected = machine(name, images, None)(x_t, alpha_bar)
    for rank in (0, 1):
        torch.testing.assert_close(found[rank][f"{name} torch.float64 empty"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MACHINES)
def test_every_process_refuses_a_label_that_no_shard_has(found: list[dict[str, object]], name: str) -> None:
    for rank in (0, 1):
        assert "label 7" in found[rank][f"{name} refused"]
