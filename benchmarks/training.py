"""A step of training on a CPU, with the weights as they are built and with the channels of a pixel side by side.

    OMP_NUM_THREADS=1 python benchmarks/training.py

Processor seconds of a step (forward, backward, Adam) of the networks of two experiments, the least of some in turn.
"""

import platform
import time
from collections.abc import Callable

import torch
from torch import nn

import elslightning as els

NETWORKS = {
    "digits: width 64, 4 layers, 128 images of 8x8": (64, 4, 128, 8),
    "fashion_mnist_small: width 48, 6 layers, 32 images of 28x28": (48, 6, 32, 28),
}
TURNS = 15


def step_of(width: int, layers: int, batch: int, side: int, layout: torch.memory_format) -> Callable[[], None]:
    """A step of training a network."""
    torch.manual_seed(0)
    network = els.ResNet(1, width=width, num_layers=layers, time_embedding="mlp", prediction="v")
    network = network.to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters())
    x_t, v, t = torch.randn(batch, 1, side, side), torch.randn(batch, 1, side, side), torch.rand(batch)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x_t, t), v).backward()
        optimizer.step()

    return step


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, of in NETWORKS.items():
        steps = [step_of(*of, layout) for layout in (torch.contiguous_format, torch.channels_last)]
        least = [float("inf")] * 2
        for _ in range(TURNS):
            for place, step in enumerate(steps):
                start = time.process_time()
                step()
                least[place] = min(least[place], time.process_time() - start)
        print(f"{name}: {1e3 * least[0]:.0f} ms, side by side {1e3 * least[1]:.0f} ms, ratio {least[1] / least[0]:.2f}")


if __name__ == "__main__":
    main()
