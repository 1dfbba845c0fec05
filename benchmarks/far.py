"""How precise the compiled loops are far from all images, and what that costs.

    OMP_NUM_THREADS=1 python benchmarks/far.py

The greatest error of a pixel of bbELS against float64, for noisy images of ever greater numbers: on the torch path,
with what the loops form (see `elslightning.machines.compiled.reflected`), and with squared distances; 64 training
images of 12×12 pixels of noise, and as many nearly equal ones; patches of 5×5 and 11×11; alpha_bar from 1e-4 to 0.99.
Then processor seconds of a query of 32×32 pixels over 128 training images with patches of 7×7, the least of four in
turn.
"""

import time
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from elslightning.machines import MACHINES, PatchMachine, compiled, patches

GREATEST = (3.0, 29.0, 100.0, 224.0, 1000.0, 10_000.0)
LEVELS = (1e-4, 0.01, 0.3, 0.9, 0.99)


def noise(generator: torch.Generator, count: int, side: int, greatest: float) -> Tensor:
    """Images of so great numbers at most."""
    return torch.randn(count, 1, side, side, generator=generator).clamp(-3, 3) / 3 * greatest


def error(greatest: float) -> float:
    """The greatest error of a pixel."""
    generator, worst = torch.Generator().manual_seed(0), 0.0
    apart = torch.rand(64, 1, 12, 12, generator=generator) * 2 - 1
    near = (0.9 * apart[:1] + 0.01 * apart).clamp(-1, 1)
    for images in (apart, near):
        for size in (5, 11):
            single, double = (MACHINES["bbels"](bank, scales=size) for bank in (images, images.double()))
            for level in LEVELS:
                x_t, alpha_bar = noise(generator, 4, 12, greatest), torch.full((4,), level, dtype=torch.float64)
                found, truth = single(x_t, alpha_bar).double(), double(x_t.double(), alpha_bar)
                worst = max(worst, float((found - truth).abs().max()))
    return worst


def seconds(name: str) -> dict[float, float]:
    """What a query costs, by its greatest number."""
    generator, found = torch.Generator().manual_seed(0), dict[float, float]()
    machine = MACHINES[name](torch.rand(128, 1, 32, 32, generator=generator) * 2 - 1, scales=7)
    for _ in range(4):
        for greatest in GREATEST:
            start = time.process_time()
            machine(noise(generator, 1, 32, greatest), torch.tensor([0.01], dtype=torch.float64))
            found[greatest] = min(found.get(greatest, np.inf), time.process_time() - start)
    return found


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'greatest number':<20}" + "".join(f"{number:>10g}" for number in GREATEST))

    def errors(what: str) -> None:
        print(f"{what:<20}" + "".join(f"{error(number):>10.0e}" for number in GREATEST))

    with patch.object(PatchMachine, "compiled", False):
        errors("torch")
    with patch.object(patches, "LARGEST_COMPILED", np.inf):
        errors("loops")
        with patch.object(compiled, "reflected", lambda queries, signal: np.stack([queries, queries], axis=1)):
            errors("squared distances")
        for name in ("bbels", "els"):
            print(f"{f'seconds of {name}':<20}" + "".join(f"{number:>10.3f}" for number in seconds(name).values()))


if __name__ == "__main__":
    main()
