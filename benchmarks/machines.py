"""Times the patch machines against the paper's algorithm: nanoseconds per pair of query pixel and candidate.

    OMP_NUM_THREADS=1 python benchmarks/machines.py            # the ratio, by patch size, channels and batch
    OMP_NUM_THREADS=1 python benchmarks/machines.py scaling    # cost against the number of training images
    OMP_NUM_THREADS=1 python benchmarks/machines.py sweep [ROOT]  # many patch sizes in one call
    OMP_NUM_THREADS=1 python benchmarks/machines.py soft       # soft windows and responses against the hard box
    OMP_NUM_THREADS=1 python benchmarks/machines.py processes  # one bank over two processes
    OMP_NUM_THREADS=1 python benchmarks/machines.py memory     # peak memory for 60,000 images of 28×28 pixels
    python benchmarks/machines.py sample ROOT                  # whole samples on Fashion-MNIST in ROOT, all cores

Training images are smooth noise of 32×32 pixels in [-1, 1]; the query is one of them at alpha_bar = 0.5. The paper's
algorithm (`benchmarks/paper.py`) takes 64 training images at a time, as long as all pairs of those are in memory at
once; its time per pair does not depend on how many there are in all, so it is timed on the first 64 only.
"""

import argparse
import math
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from paper import els_posterior_mean
from torch import Tensor

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import (
    BoundaryBrokenScoreMachine,
    EquivariantLocalScoreMachine,
    SoftBoundaryBrokenScoreMachine,
    SoftEquivariantLocalScoreMachine,
)
from elslightning.machines.patches import PatchMachine
from elslightning.machines.scales import ScaleTable

SIDE = 32
SIZES = {1: (3, 7, 11, 15, 17), 3: (3, 9, 17)}
MACHINES = {"bbels": BoundaryBrokenScoreMachine, "els": EquivariantLocalScoreMachine}
SOFT = {
    "bbels": (BoundaryBrokenScoreMachine, SoftBoundaryBrokenScoreMachine),
    "els": (EquivariantLocalScoreMachine, SoftEquivariantLocalScoreMachine),
}
SWEPT = tuple(range(3, 18, 2))
# The published scales of the class-conditional Fashion-MNIST ResNet, low to high noise.
FASHION_SCALES = [3, 3, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 13, 13, 15, 15, 15, 17, 17]


def smooth_images(count: int, channels: int) -> Tensor:
    """Smooth noise (count, channels, SIDE, SIDE) in [-1, 1]."""
    noise = torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2) * 3).clamp(-1, 1)


def queries(images: Tensor, batch: int, alpha_bar: float) -> tuple[Tensor, Tensor]:
    """The first training images with noise, and their alpha_bar."""
    noise = torch.randn(batch, *images.shape[1:], generator=torch.Generator().manual_seed(1))
    x_t = alpha_bar**0.5 * images[:batch] + (1 - alpha_bar) ** 0.5 * noise
    return x_t, torch.full((batch,), alpha_bar, dtype=torch.float64)


def pairs(machine: str, patch_size: int) -> int:
    """Pairs of query pixel and candidate per query and training image."""
    if machine == "els":
        return SIDE**4
    inner = max(0, SIDE - patch_size + 1)
    return (inner**2 + SIDE - inner) ** 2


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def ratios(count: int, batches: list[int], alpha_bar: float) -> None:
    """Both machines against the paper's algorithm, and their errors against float64."""
    print(f"{count} training images, alpha_bar {alpha_bar}; nanoseconds per pair")
    print("channels   P batch   paper   bbels  ratio     els  ratio  error of eps")
    for channels, sizes in SIZES.items():
        images = smooth_images(count, channels)
        found: dict[tuple[str, int], list[float]] = {}
        for size in sizes:
            x_t, levels = queries(images, 1, alpha_bar)
            yardstick = seconds(lambda x=x_t, i=images[:64], p=size: els_posterior_mean(x[0], alpha_bar, i, p, 64), 2)
            paper = yardstick / (64 * SIDE**4)
            for batch in batches:
                x_t, levels = queries(images, batch, alpha_bar)
                row, error = [], 0.0
                for name, kind in MACHINES.items():
                    machine = kind(images, scales=size)
                    machine(x_t[:1], levels[:1])  # compiles
                    ours = seconds(lambda m=machine, x=x_t, a=levels: m(x, a), 2) / (count * batch * pairs(name, size))
                    found.setdefault((name, batch), []).append(paper / ours)
                    row.append(f"{ours * 1e9:8.2f}{paper / ours:7.1f}")
                    error = max(error, eps_error(machine, kind(images[:32].double(), scales=size), x_t, alpha_bar))
                print(f"{channels:>8}{size:>4}{batch:>6}{paper * 1e9:8.1f}{''.join(row)}{error:14.1e}", flush=True)
        for (name, batch), values in found.items():
            mean = math.exp(sum(map(math.log, values)) / len(values))
            print(f"{channels} channels, batch {batch}, {name}: geometric mean of the ratio {mean:.1f}")


def eps_error(machine: torch.nn.Module, exact: torch.nn.Module, x_t: Tensor, alpha_bar: float) -> float:
    """Relative error of eps of one image, over the first 32 training images."""
    level = torch.tensor([alpha_bar], dtype=torch.float64)
    truth = exact.eps(x_t[:1].double(), level)  # type: ignore[operator]
    small = type(machine)(machine.images[:32], scales=machine.scales)  # type: ignore[index, call-arg]
    return float((small.eps(x_t[:1], level) - truth).norm() / truth.norm())


def scaling(alpha_bar: float) -> None:
    """Seconds for one query against the number of training images."""
    print(f"{'N':>6}{'bbels P=7':>12}{'bbels P=15':>12}   seconds per query")
    for count in (500, 1000, 2000, 4000, 8000):
        images = smooth_images(count, 1)
        x_t, levels = queries(images, 1, alpha_bar)
        machines = [BoundaryBrokenScoreMachine(images, scales=size) for size in (7, 15)]
        times = [seconds(lambda m=m, x=x_t, a=levels: m(x, a), 2) for m in machines]
        print(f"{count:>6}{times[0]:12.3f}{times[1]:12.3f}", flush=True)


def sweep(count: int) -> None:
    """A sweep over many patch sizes against the costliest of them alone."""
    images = smooth_images(count, 1)
    for name, kind in MACHINES.items():
        for alpha_bar in (0.1, 0.5, 0.9, 0.99):
            x_t, levels = queries(images, 1, alpha_bar)
            together, single = sweep_seconds(kind(images, scales=3), x_t, levels)
            report_sweep(f"{name} alpha_bar {alpha_bar}", together, single)


def soft(count: int, batch: int) -> None:
    """What soft windows and responses cost, in processor time, relative to the hard box of the same patch size."""
    images = smooth_images(count, 1)
    print(f"{count} training images, batch {batch}; processor seconds, and ratio to the hard box")
    print("machine   alpha_bar   P    hard   soft window   ratio   both soft   ratio  error of eps")
    for name, (hard, kind) in SOFT.items():
        for alpha_bar in (0.1, 0.5, 0.9):
            for size in (3, 7, 11):
                x_t, levels = queries(images, batch, alpha_bar)
                options = ({}, {"softness": 2.0, "response": 0.0}, {"softness": 2.0, "response": 1.0})
                machines = [(kind if option else hard)(images, scales=size, **option) for option in options]
                for machine in machines:
                    machine(x_t[:1], levels[:1])  # compiles
                times = [math.inf] * 3
                for _ in range(4):  # in turn, so that all see the same machine
                    for k, machine in enumerate(machines):
                        start = time.process_time()
                        machine(x_t, levels)
                        times[k] = min(times[k], time.process_time() - start)
                exact = kind(images[:32].double(), scales=size, **options[2])
                truth = exact.eps(x_t[:1].double(), levels[:1])
                found = kind(images[:32], scales=size, **options[2]).eps(x_t[:1], levels[:1])
                error = float((found - truth).norm() / truth.norm())
                print(
                    f"{name:<8}{alpha_bar:>11}{size:>4}{times[0]:8.3f}{times[1]:14.3f}{times[1] / times[0]:8.2f}"
                    f"{times[2]:12.3f}{times[2] / times[0]:8.2f}{error:14.1e}",
                    flush=True,
                )


def sweep_sample(root: Path) -> None:
    """The same for all states of a reverse process on Fashion-MNIST: a calibration with one sample."""
    images = fashion(root)[:500]
    schedule = CosineSchedule()
    machine = BoundaryBrokenScoreMachine(images, scales=fashion_scales())
    noise = torch.randn(1, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    trajectory = ddim(machine, noise, schedule, 20)
    times = [
        sweep_seconds(machine, x_t, level.expand(1))
        for x_t, level in zip(trajectory.x_t[:-1], trajectory.alpha_bar[:-1], strict=True)
    ]
    together = sum(both for both, _ in times)
    single = [sum(column) for column in zip(*(alone for _, alone in times), strict=True)]
    report_sweep(f"bbels, 20 states of a sample of Fashion-MNIST, {len(images)} images", together, single)


def sweep_seconds(machine: PatchMachine, x_t: Tensor, levels: Tensor) -> tuple[float, list[float]]:
    """All sizes in one pass, and each alone."""
    machine.sweep(x_t, levels, SWEPT)
    alone = [seconds(lambda size=size: machine.sweep(x_t, levels, [size])) for size in SWEPT]  # type: ignore[misc]
    return seconds(lambda: machine.sweep(x_t, levels, SWEPT)), alone


def report_sweep(what: str, together: float, single: list[float]) -> None:
    print(
        f"{what}: sweep {together:.3f} s, costliest single size {max(single):.3f} s, "
        f"ratio {together / max(single):.2f}, all one by one {sum(single):.3f} s",
        flush=True,
    )


def share(rank: int, world: int, folder: str) -> None:
    """Times one process of some that share a bank; the first one prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    images = smooth_images(2000, 1)
    x_t, levels = queries(images, 4, 0.5)
    group = dist.group.WORLD if world > 1 else None
    machine = BoundaryBrokenScoreMachine(images.tensor_split(world)[rank].clone(), scales=7, process_group=group)
    machine(x_t[:1], levels[:1])
    dist.barrier()
    took = seconds(lambda: machine(x_t, levels))
    if rank == 0:
        print(f"{world} process(es) of one thread: {took:.2f} s for 4 queries, 2,000 images, P = 7", flush=True)
    dist.destroy_process_group()


def processes() -> None:
    """One process against two that share the bank."""
    for world in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(share, args=(world, folder), nprocs=world)


def memory(budget: int = 2**28) -> None:
    """Peak resident memory beyond what was there before, for 1,000 and 60,000 training images of bytes."""
    for count in (1000, 60_000):
        images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
        x_t = torch.randn(2, 1, 28, 28)
        levels = torch.tensor([0.5, 0.9], dtype=torch.float64)
        before = psutil.Process().memory_info().rss
        start = time.perf_counter()
        BoundaryBrokenScoreMachine(images, scales=11, memory_budget=budget)(x_t, levels)
        took = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"N = {count}: bank {images.nbytes / 2**20:.0f} MiB, budget {budget / 2**20:.0f} MiB, peak beyond what was "
            f"there with the bank {(peak - before) / 2**20:.0f} MiB, {took:.1f} s",
            flush=True,
        )


def fashion(root: Path) -> Tensor:
    """All images of one class of Fashion-MNIST."""
    data = ImageDataModule("fashion_mnist", root=root, num_classes=10)
    data.setup()
    assert data.train_labels is not None
    return data.train_images[data.train_labels == 0]


def fashion_scales() -> ScaleTable:
    return ScaleTable(CosineSchedule().noise_levels(20).flip(0), FASHION_SCALES)


def sample(root: Path, batch: int) -> None:
    """Whole theory samples over all 6,000 images of one class, with all threads."""
    images, schedule = fashion(root), CosineSchedule()
    machine = BoundaryBrokenScoreMachine(images, scales=fashion_scales())
    noise = torch.randn(batch, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    machine(noise[:1], schedule.noise_levels(20)[:1])
    start = time.perf_counter()
    ddim(machine, noise, schedule, 20)
    total = time.perf_counter() - start
    print(f"{len(images)} images, batch {batch}, 20 steps: {total:.1f} s, {total / batch:.2f} s per sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        nargs="?",
        default="ratios",
        choices=["ratios", "scaling", "sweep", "soft", "sample", "processes", "memory"],
    )
    parser.add_argument("root", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--alpha-bar", type=float, default=0.5)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if arguments.what == "ratios":
        ratios(arguments.count, arguments.batch, arguments.alpha_bar)
    elif arguments.what == "scaling":
        scaling(arguments.alpha_bar)
    elif arguments.what == "sweep":
        sweep(min(arguments.count, 128))
        if arguments.root:
            sweep_sample(arguments.root)
    elif arguments.what == "soft":
        soft(min(arguments.count, 256), arguments.batch[0])
    elif arguments.what == "processes":
        processes()
    elif arguments.what == "memory":
        memory()
    else:
        sample(arguments.root, arguments.batch[-1])


if __name__ == "__main__":
    main()
