"""Drawn candidates against all of them, on Fashion-MNIST: how well what is stated holds, and what it costs.

    OMP_NUM_THREADS=1 python benchmarks/full_size.py ROOT [--count 6000] [--images 8] [--accuracy 0.05]
    python benchmarks/full_size.py ROOT --samples --count 60000 --images 100 [--accuracy 0.05] [--index FOLDER]

ROOT is the folder of the four files. bbELS over so many training images, without labels, at noised validation images,
with patch sizes like those that were published for a ResNet: exact, and with the accuracy that is asked. For each
noise level: processor seconds of the index, and milliseconds a pixel, exact and drawn; the root mean square of the
stated errors and of the true ones; the share of pixels whose exact value lies within 1.96 stated errors, give or take
1e-4; and the share that is called doubtful.

With `--samples`, so many whole samples of 20 steps instead, with the published patch sizes and all threads: seconds of
the index and of the sampling, the memory beyond that of the bank, and the share of doubtful pixels. With `--index` the
index is kept in a folder, and taken from there the next time. What draws do to samples says `stated_errors.py`.
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from machines import fashion_scales

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.machines import BoundaryBrokenScoreMachine

LEVELS = ((1.0, 17), (0.8, 15), (0.5, 11), (0.3, 7), (0.1, 3))
"""Times of the cosine schedule, and patch sizes."""

T = TypeVar("T")


def seconds(function: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the processor seconds that it takes."""
    start = time.process_time()
    found = function()
    return found, time.process_time() - start


def samples(images: torch.Tensor, count: int, accuracy: float, index: Path | None) -> None:
    """Whole samples, and what they take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    schedule, scales = CosineSchedule(), fashion_scales()
    machine = BoundaryBrokenScoreMachine(images, scales=scales, accuracy=accuracy, index=index)
    noise = torch.randn(count, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    for level in schedule.noise_levels(20):
        machine(noise[:1], level[None])
    built = time.perf_counter()
    ddim(machine, noise, schedule, 20)
    done = time.perf_counter()
    print(
        f"index, and one evaluation at each noise level: {built - start:.0f} s; {count} samples: {done - built:.0f} s"
    )
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"memory beyond the bank: {used / 2**20:.2f} GiB; doubtful: {machine.doubtful:.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--accuracy", type=float, default=0.05)
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--index", type=Path)
    options = parser.parse_args()
    data = ImageDataModule("fashion_mnist", root=options.root, num_classes=10, train_size=options.count)
    data.setup()
    images, clean = data.train_images, data.val_images[: options.images]
    generator, pixels = torch.Generator().manual_seed(0), clean[:, 0].numel()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(images)} images, {len(clean)} queries, accuracy {options.accuracy}")
    if options.samples:
        samples(images, options.images, options.accuracy, options.index)
        return
    names = ("t", "P", "index s", "exact ms", "drawn ms", "stated", "true", "covered", "doubtful")
    print("".join(f"{name:>10}" for name in names))
    for t, size in LEVELS:
        alpha_bar = CosineSchedule().alpha_bar(torch.tensor([t], dtype=torch.float64)).expand(len(clean))
        x_t = add_noise(clean, torch.randn(clean.shape, generator=generator), alpha_bar)
        exact, drawn = (
            BoundaryBrokenScoreMachine(images, scales=size, accuracy=accuracy)
            for accuracy in ("exact", options.accuracy)
        )
        exact(x_t[:1, :, :, :], alpha_bar[:1])  # compiles
        truth, whole = seconds(lambda machine=exact, x=x_t, level=alpha_bar: machine(x, level))
        _, index = seconds(lambda machine=drawn, x=x_t, level=alpha_bar: machine.estimate(x[:1], level[:1]))
        found, quick = seconds(lambda machine=drawn, x=x_t, level=alpha_bar: machine.estimate(x, level))
        away = found.x0 - truth
        covered = (away.abs() <= 1.96 * found.error + 1e-4).float().mean()
        print(
            f"{t:>10}{size:>10}{index:>10.1f}{1e3 * whole / pixels:>10.2f}{1e3 * quick / pixels:>10.2f}"
            f"{found.error.square().mean().sqrt():>10.4f}{away.square().mean().sqrt():>10.4f}"
            f"{covered:>10.3f}{found.doubtful.float().mean():>10.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
