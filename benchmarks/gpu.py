"""What the exact machines cost on a device, by their torch path: a GPU where there is one.

    python benchmarks/gpu.py [--device cuda] [--images 2000] [--batch 16] [--full 60000]

Training images are smoothed noise, queries noised ones. For bbELS and ELS, grey at 28x28 and in colour at 32x32, patch
sizes and noise levels like those that were published: picoseconds per pair of query pixel and candidate; the share of
the device's own float32 speed, a matrix product of 4096x4096 without TF32, that the products of patches reach (of
float64, where the machine takes it, likewise); the greatest error of x0 against float64, over a tenth of the images;
and the peak of memory, the bank included. Then the sizes of blocks of log-weights, and a bank of bytes of full size.
"""

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from elslightning.diffusion.schedule import add_noise
from elslightning.machines import BoundaryBrokenScoreMachine, EquivariantLocalScoreMachine, patches
from elslightning.machines.kernels import full_precision, working_dtype
from elslightning.machines.patches import PatchMachine

CASES = ((1, 28, 3, 0.994), (1, 28, 3, 0.95), (1, 28, 7, 0.8), (1, 28, 15, 0.1), (3, 32, 3, 0.95), (3, 32, 9, 0.5))
"""Channels, side, patch size and alpha_bar."""
MACHINES = {"bbELS": BoundaryBrokenScoreMachine, "ELS": EquivariantLocalScoreMachine}
BLOCKS = (2**20, 2**22, 2**24, 2**26, 2**28)
REPEATS = 3


def smooth(count: int, channels: int, side: int, device: torch.device) -> Tensor:
    """Images of smoothed noise in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    images = [
        F.avg_pool2d(torch.rand(part, channels, side, side, generator=generator), 3, 1, 1)
        for part in [1000] * (count // 1000) + [count % 1000]
        if part
    ]
    return (torch.cat(images) * 2 - 1).to(device)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """The least time of some calls after a first one, and the result."""
    found, least = function(), float("inf")
    for _ in range(REPEATS):
        wait(device)
        start = time.perf_counter()
        found = function()
        wait(device)
        least = min(least, time.perf_counter() - start)
    return least, found


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Floating point operations per second of a large product."""
    side = 4096 if device.type != "cpu" else 1024
    a = torch.rand(side, side, dtype=dtype, device=device)
    with full_precision(device):
        return 2 * side**3 / seconds(lambda: a @ a, device)[0]


def pairs(machine: PatchMachine, size: int, batch: int) -> int:
    """How many pairs an evaluation looks at."""
    regions = machine._regions(size)
    return batch * len(machine.images) * sum(region.group_count * region.group_size**2 for region in regions)


def memory(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB" if device.type == "cuda" else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--full", type=int, default=60_000)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    speed = {dtype: peak(dtype, device) for dtype in (torch.float32, torch.float64)}
    print(f"{name}, torch {torch.__version__}, {options.images} images, batch {options.batch}")
    print(", ".join(f"{dtype}: {value / 1e9:,.0f} GFLOP/s" for dtype, value in speed.items()))
    with patch.object(PatchMachine, "compiled", False):
        print(
            "".join(
                f"{x:>12}" for x in ("machine", "channels", "P", "alpha_bar", "ps/pair", "share", "error", "memory")
            )
        )
        for channels, side, size, level in CASES:
            images = smooth(options.images, channels, side, device)
            alpha_bar = torch.full((options.batch,), level, dtype=torch.float64)
            noise = torch.randn(options.batch, *images.shape[1:], generator=torch.Generator().manual_seed(1))
            x_t = add_noise(images[: options.batch], noise.to(device), alpha_bar)
            for label, make in MACHINES.items():
                machine = make(images, scales=size)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                taken, _ = seconds(lambda machine=machine, x=x_t, level=alpha_bar: machine(x, level), device)
                used, count, dim = memory(device), pairs(machine, size, options.batch), channels * size**2
                share = 2 * dim * count / taken / speed[working_dtype(x_t, level, dim)]
                few = make(images[: max(1, options.images // 10)], scales=size)
                error = (few(x_t, alpha_bar).double() - few(x_t.double(), alpha_bar)).abs().max()
                cells = (
                    label,
                    channels,
                    size,
                    level,
                    f"{1e12 * taken / count:.1f}",
                    f"{share:.0%}",
                    f"{error:.0e}",
                    used,
                )
                print("".join(f"{cell:>12}" for cell in cells), flush=True)
        for block in BLOCKS:
            machine = BoundaryBrokenScoreMachine(images, scales=size)
            with patch.object(patches, "attention_block", lambda *_, block=block: block):
                taken, _ = seconds(lambda machine=machine: machine(x_t, alpha_bar), device)
            each = 1e12 * taken / pairs(machine, size, options.batch)
            print(f"blocks of 2^{block.bit_length() - 1}: {each:.1f} ps/pair")
        bank = ((smooth(options.full, 1, 28, torch.device("cpu")) + 1) * 127.5).to(torch.uint8).to(device)
        machine = BoundaryBrokenScoreMachine(bank, scales=7)
        x_t = add_noise(smooth(1, 1, 28, device), torch.zeros(1, 1, 28, 28, device=device), alpha_bar[:1])
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        machine(x_t, alpha_bar[:1])
        wait(device)
        print(f"{options.full} images, P = 7, one query: {time.perf_counter() - start:.2f} s, {memory(device)}")


if __name__ == "__main__":
    main()
