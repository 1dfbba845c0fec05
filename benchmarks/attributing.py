"""Attribution by draws, beside attribution with all candidates, on Fashion-MNIST.

    OMP_NUM_THREADS=2 python benchmarks/attributing.py ROOT [--count 6000] [--images 1] [--top 8]

bbELS over the first N training images, without labels, at noised validation images. For each patch size and noise
level: seconds an image, drawn and exact; the share of pixels whose first named patch is as near as the nearest; of the
others, how many nats behind it the first named one lies, in the median; the share of the weight of the exact leading
patches that those named by draws have; and the mean difference of the entropies, beside the exact mean, in nats.
"""

import argparse
import platform
import time
from pathlib import Path

import torch
from torch.nn.functional import pad

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.machines import BoundaryBrokenScoreMachine
from elslightning.measurement.attribution import Attribution, attribute

SIZES, TIMES = (3, 7, 15), (0.1, 0.3, 0.8)


def distances(
    images: torch.Tensor, x_t: torch.Tensor, level: torch.Tensor, found: Attribution, size: int
) -> torch.Tensor:
    """(batch, row, column, top) squared distances of what is named, float64; infinite where nothing is."""
    asked = pad(x_t.double(), [size // 2] * 4).unfold(2, size, 1).unfold(3, size, 1)[:, 0]
    result = []
    for top in range(found.image.shape[-1]):
        image, row, column = (part[..., top].clamp(min=0) for part in (found.image, found.row, found.column))
        reach = torch.arange(size) - size // 2
        rows, columns = row[..., None, None] + reach[:, None], column[..., None, None] + reach
        inside = (rows >= 0) & (rows < 28) & (columns >= 0) & (columns < 28)
        values = images[image[..., None, None], 0, rows.clamp(0, 27), columns.clamp(0, 27)] * inside
        away = (asked - level[:, None, None, None, None].sqrt() * values).square().sum(dim=(3, 4))
        result.append(away.masked_fill(found.image[..., top] < 0, torch.inf))
    return torch.stack(result, dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--top", type=int, default=8)
    options = parser.parse_args()
    data = ImageDataModule("fashion_mnist", root=options.root, num_classes=10, train_size=options.count)
    data.setup()
    images, clean = data.train_images, data.val_images[: options.images]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {len(images)} images")
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for size in SIZES:
        exact, drawn = (BoundaryBrokenScoreMachine(images, scales=size, accuracy=asked) for asked in ("exact", 0.05))
        half = torch.full((len(clean),), 0.5, dtype=torch.float64)
        start = time.perf_counter()
        attribute(drawn, clean, half, top=options.top)
        print(f"P = {size}: index and one attribution {time.perf_counter() - start:.0f} s", flush=True)
        for t in TIMES:
            level = CosineSchedule().alpha_bar(torch.full((len(clean),), t, dtype=torch.float64))
            x_t, found = add_noise(clean, noise, level), []
            for machine in (drawn, exact):
                start = time.perf_counter()
                found.append(attribute(machine, x_t, level, top=options.top))
                print(f"  {(time.perf_counter() - start) / len(clean):.1f} s", end="")
            mine, nearest = (distances(images, x_t, level, one, size) for one in found)
            behind = (mine - nearest)[..., 0] / (2 * (1 - level))[:, None, None]
            missed = behind > 1e-5 * nearest[..., 0] / (2 * (1 - level))[:, None, None]
            rate = 1 / (2 * (1 - level))[:, None, None, None]
            heavy = [(-rate * (one - nearest[..., :1])).exp().sum(dim=-1) for one in (mine, nearest)]
            apart = (found[0].entropy - found[1].entropy).abs().mean()
            print(
                f"  t = {t}: nearest {1 - missed.double().mean():.2f}, "
                f"behind {float(behind[missed].median()) if bool(missed.any()) else 0:.2f}, "
                f"weight {float((heavy[0] / heavy[1]).mean()):.2f}, "
                f"entropy {float(apart):.3f} of {float(found[1].entropy.mean()):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
