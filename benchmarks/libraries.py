"""What libraries that find nearest neighbours would bring to a theory over many patches, beside drawn candidates.

    OMP_NUM_THREADS=1 python benchmarks/libraries.py ROOT [--count 6000] [--queries 100]

Needs faiss (`pip install faiss-cpu`), and with `--descent` pynndescent. Interior patches of Fashion-MNIST's first N
images, two noisy validation images; the softmax average over the 2,048 nearest candidates that an index finds, against
that over all. For each index: processor seconds to build it, milliseconds a query, the median share of the weight that
is found, and the root mean square error of x0. Then drawn candidates, which say their error: seconds for the first
image, with the index, milliseconds a pixel, the error they state and the true one.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.machines import BoundaryBrokenScoreMachine

NEAREST = 2048
LISTS, PROBED = 2048, (16, 64)
SETTINGS = ((0.3, 7), (0.8, 15))


def patches(images: torch.Tensor, size: int) -> np.ndarray:
    """(patch, P²) of images of one channel."""
    windows = images.unfold(2, size, 1).unfold(3, size, 1)
    return np.ascontiguousarray(windows.reshape(-1, size * size).numpy())


class Truth:
    """Averages over all candidates, to judge others by."""

    def __init__(self, keys: np.ndarray, queries: np.ndarray, alpha_bar: float) -> None:
        self.centres = keys[:, keys.shape[1] // 2].copy()
        rate, lengths = np.float32(alpha_bar / (2 * (1 - alpha_bar))), (keys**2).sum(axis=1)
        logs = np.stack([-rate * (lengths - 2 * (keys @ query)) for query in queries])
        self.weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        self.whole = self.weights.sum(axis=1)
        self.x0 = self.weights @ self.centres / self.whole

    def judge(self, name: str, found: np.ndarray, built: float, seconds: float) -> None:
        there = found >= 0
        weights = np.where(there, np.take_along_axis(self.weights, np.maximum(found, 0), axis=1), 0)
        x0 = (weights * self.centres[found]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-30)
        share = np.median(weights.sum(axis=1) / self.whole)
        away = np.sqrt(np.mean((x0 - self.x0) ** 2))
        each = 1e3 * seconds / len(found)
        print(f"  {name}: {built:.0f} s, {each:.2f} ms, weight {share:.2f}, error {away:.3f}", flush=True)


def searched(truth: Truth, keys: np.ndarray, queries: np.ndarray) -> None:
    """Indices of faiss: of all numbers, of half a byte for each of some parts, and of 16 principal directions."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    dim = keys.shape[1]
    parts = next(count for count in range(45, 0, -1) if dim % count == 0)
    coded = f"IVF{LISTS},PQ{parts}x4fs" if parts > 7 else f"PCA32,IVF{LISTS},PQ16x4fs"
    for name in (f"IVF{LISTS},Flat", coded, f"PCA16,IVF{LISTS},SQ4"):
        start = time.process_time()
        index: Any = faiss.index_factory(dim, name)
        index.train(keys[np.random.default_rng(0).integers(0, len(keys), 200_000)])
        index.add(keys)
        built = time.process_time() - start
        for probed in PROBED:
            faiss.extract_index_ivf(index).nprobe = probed
            start = time.process_time()
            _, found = index.search(queries, NEAREST)
            truth.judge(f"{name}, {probed} lists", found, built, time.process_time() - start)


def descended(truth: Truth, keys: np.ndarray, queries: np.ndarray) -> None:
    """A graph of neighbours."""
    from pynndescent import NNDescent

    start = time.process_time()
    index = NNDescent(keys, n_neighbors=30, random_state=0, n_jobs=1)
    index.prepare()
    built, start = time.process_time() - start, time.process_time()
    found, _ = index.query(queries, k=NEAREST)
    truth.judge("pynndescent", found, built, time.process_time() - start)


def drawn(truth: Truth, images: torch.Tensor, x_t: torch.Tensor, level: torch.Tensor, size: int, every: int) -> None:
    """The machine's own draws, and their error at the same pixels."""
    inside = slice(size // 2, -(size // 2))
    for accuracy in (0.05, 0.02):
        machine = BoundaryBrokenScoreMachine(images, scales=size, accuracy=accuracy)
        start = time.process_time()
        machine.estimate(x_t[:1], level[:1])
        first, start = time.process_time() - start, time.process_time()
        found = machine.estimate(x_t, level)
        each = 1e3 * (time.process_time() - start) / found.doubtful.numel()
        x0, error = (part[:, 0, inside, inside].reshape(-1)[::every].numpy() for part in found[:2])
        away, said = np.sqrt(np.mean((x0 - truth.x0) ** 2)), np.sqrt(np.mean(error**2))
        print(f"  accuracy {accuracy}: first {first:.1f} s, {each:.2f} ms a pixel, error {away:.3f}, stated {said:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--descent", action="store_true", help="a graph of neighbours, too")
    options = parser.parse_args()
    data = ImageDataModule("fashion_mnist", root=options.root, num_classes=10, train_size=options.count)
    data.setup()
    images, noise = data.train_images, torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for t, size in SETTINGS:
        level = CosineSchedule().alpha_bar(torch.full((2,), t, dtype=torch.float64))
        x_t = add_noise(data.val_images[:2], noise, level)
        keys, queries = patches(images, size), patches(x_t, size) / np.float32(float(level[0]) ** 0.5)
        every = max(1, len(queries) // options.queries)
        queries = np.ascontiguousarray(queries[::every])
        print(f"t = {t}, P = {size}: {len(keys):,} candidates, {len(queries)} queries", flush=True)
        truth = Truth(keys, queries, float(level[0]))
        searched(truth, keys, queries)
        if options.descent:
            descended(truth, keys, queries)
        drawn(truth, images, x_t, level, size, every)


if __name__ == "__main__":
    main()
