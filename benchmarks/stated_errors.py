"""Whether the stated error of drawn candidates holds at every noise level of a table of patch sizes, and what it does
to samples.

    OMP_NUM_THREADS=2 python benchmarks/stated_errors.py DATASET ROOT SCALES [--channels 1] [--count N] [--label L]
        [--size S] [--samples 8] [--accuracy 0.05] [--seed 0] [--machine bbels] [--device cuda] [--keep FILE]

DATASET is a name of `data.dataset` and ROOT its folder; SCALES is a file of patch sizes, the published ones or
`scales.json` of a calibration. A machine, bbELS if none is named, over N training images, all or those of a class:
samples of 20 steps by all candidates, on any device; at each of their states the posterior mean by draws, on the
processor. For each noise level: milliseconds a pixel; the root mean square of the stated errors and of the true ones;
the share of pixels whose exact value lies within 1.96 stated errors, give or take 1e-4; and the share that is called
doubtful. Then samples by draws alone, from the same noise, and those of a replica: Pearson's r with the exact ones and
with each other.

With `--keep`, exact states are read from that file if it is there, and otherwise written to it.
"""

import argparse
import platform
import time
from pathlib import Path

import torch

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.sampling import Trajectory, ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import MACHINES, ScaleTable
from elslightning.measurement.agreement import agreement

STEPS = 20


def exact(options: argparse.Namespace, images: torch.Tensor, scales: ScaleTable) -> Trajectory:
    """Samples by all candidates, with everything on the way."""
    if options.keep is not None and options.keep.exists():
        return Trajectory(*torch.load(options.keep, weights_only=True))
    noise = torch.randn(options.samples, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    machine = MACHINES[options.machine](images.to(options.device), scales=scales)
    start = time.perf_counter()
    found = Trajectory(*(part.cpu() for part in ddim(machine, noise.to(options.device), CosineSchedule(), STEPS)))
    print(f"exact samples on {options.device}: {time.perf_counter() - start:.0f} s", flush=True)
    if options.keep is not None:
        torch.save(tuple(found), options.keep)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("root", type=Path)
    parser.add_argument("scales", type=Path)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--label", type=int, help="images of this class only")
    parser.add_argument("--size", type=int, help="side in pixels that images are resized to")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--accuracy", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--machine", default="bbels", help="one that draws, as machines are named in a configuration")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    data = ImageDataModule(
        options.dataset,
        root=options.root,
        channels=options.channels,
        train_size=options.count,
        image_size=options.size,
    )
    data.setup()
    images, schedule = data.train_images, CosineSchedule()
    if options.label is not None:
        images = images[data.train_labels == options.label]
    published = options.scales.suffix == ".pt"
    scales = (
        ScaleTable.from_official(options.scales, schedule)
        if published
        else ScaleTable.load(options.scales, options.machine)
    )
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(images)} images, {options.samples} samples, accuracy {options.accuracy}", flush=True)
    truth = exact(options, images, scales)
    noise, count = truth.x_t[0], len(truth.x_t[0])
    drawn = MACHINES[options.machine](images, scales=scales, accuracy=options.accuracy, seed=options.seed)
    start = time.perf_counter()
    for level in schedule.noise_levels(STEPS):
        drawn(noise[:1], level[None])
    print(f"index, and one evaluation at each noise level: {time.perf_counter() - start:.0f} s")
    print("".join(f"{name:>10}" for name in ("t", "P", "ms", "stated", "true", "covered", "doubtful")))
    for step, (level, x_t, x0) in enumerate(zip(truth.alpha_bar[:-1], truth.x_t[:-1], truth.x0, strict=True)):
        start = time.perf_counter()
        found = drawn.estimate(x_t, level.expand(count))
        took = time.perf_counter() - start
        away = found.x0 - x0
        covered = (away.abs() <= 1.96 * found.error + 1e-4).float().mean()
        size, each = int(drawn.patch_size_at(level[None])[0]), 1e3 * took / x_t[:, 0].numel()
        print(
            f"{1 - step / STEPS:>10.2f}{size:>10}{each:>10.3f}"
            f"{found.error.square().mean().sqrt():>10.4f}{away.square().mean().sqrt():>10.4f}"
            f"{covered:>10.3f}{found.doubtful.float().mean():>10.3f}",
            flush=True,
        )
    start = time.perf_counter()
    samples = ddim(drawn, noise, schedule, STEPS).samples
    print(f"drawn samples: {time.perf_counter() - start:.0f} s")
    r = agreement(samples, truth.samples)["pearson_r"]
    print(f"r with exact samples: median {r.median():.4f}, least {r.min():.4f}", flush=True)
    r = agreement(ddim(drawn.replica, noise, schedule, STEPS).samples, samples)["pearson_r"]
    print(f"r of two replicas: median {r.median():.4f}, least {r.min():.4f}")


if __name__ == "__main__":
    main()
