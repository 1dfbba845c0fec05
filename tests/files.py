"""Files of data sets, small and of noise: IDX, batches of CIFAR-10 as Python 2 wrote them, and images; and of runs."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from elslightning.data.cifar import FOLDER as CIFAR_FOLDER
from elslightning.data.cifar import TRAIN as CIFAR_TRAIN

# IDX.

IDX_IMAGES = torch.arange(5 * 28 * 28).remainder(256).to(torch.uint8).reshape(5, 28, 28)
IDX_LABELS = torch.tensor([3, 0, 9, 1, 3], dtype=torch.uint8)


def idx(tensor, *, kind=0x08, dimensions=None):
    """The bytes of an IDX file."""
    header = bytes([0, 0, kind, dimensions or tensor.ndim])
    return header + struct.pack(f">{tensor.ndim}I", *tensor.shape) + tensor.numpy().tobytes()


def write_idx(folder, packed=False, **replaced):
    """The four files, all of five images; `replaced` gives other bytes for some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train-images-idx3-ubyte": idx(IDX_IMAGES),
        "train-labels-idx1-ubyte": idx(IDX_LABELS),
        "t10k-images-idx3-ubyte": idx(255 - IDX_IMAGES[:3]),
        "t10k-labels-idx1-ubyte": idx(IDX_LABELS[:3]),
    }
    for name, content in (files | {key.replace("_", "-"): value for key, value in replaced.items()}).items():
        if content is not None:
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)


def write_fashion_mnist(root: Path, train_size: int = 60, val_size: int = 20) -> Path:
    """The four IDX files of Fashion-MNIST, with few images of noise and all ten labels; returns their folder."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for prefix, count in (("train", train_size), ("t10k", val_size)):
        images = torch.from_numpy(generator.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        (root / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{prefix}-labels-idx1-ubyte").write_bytes(idx((torch.arange(count) % 10).to(torch.uint8)))
    return root


# CIFAR-10.

CIFAR_IMAGES = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CIFAR_LABELS = [3, 0, 9, 1, 3, 5, 8, 2, 4, 6, 7, 9]


def text(value):
    """A string of Python 2."""
    return b"U" + bytes([len(value)]) + value


def array(images, *, columns_first=False, width=3072, kind=b"u1"):
    """An array of bytes in rows, as numpy has Python 2 pickle it."""
    rows = images.reshape(len(images), -1).numpy()
    raw = rows.tobytes(order="F" if columns_first else "C")
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\x09(K\x01"
        b"M" + struct.pack("<H", len(images)) + b"M" + struct.pack("<H", width) + b"\x86cnumpy\ndtype\nq\x0a"
        + text(kind) + b"K\x00K\x01\x87Rq\x0b(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if columns_first else b"\x89") + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip


def batch(images, labels, data=None):
    """A batch as distributed: protocol 2, strings of Python 2, long memo positions."""
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
        + text(b"data") + b"q\x06" + (array(images) if data is None else data)
        + text(b"filenames") + b"q\x0c]q\x0d("
        + b"".join(text(b"%d.png" % n) + b"r" + struct.pack("<I", 14 + n) for n in range(len(images)))
        + b"eu."
    )  # fmt: skip


def write_cifar10(root, **replaced):
    """The folder with six batches of two images; `replaced` gives other bytes for some of them."""
    (root / CIFAR_FOLDER).mkdir(parents=True)
    for n, name in enumerate((*CIFAR_TRAIN, "test_batch")):
        part = slice(2 * n, 2 * n + 2)
        content = replaced.get(name, batch(CIFAR_IMAGES[part], CIFAR_LABELS[part]))
        if content is not None:
            (root / CIFAR_FOLDER / name).write_bytes(content)


# Images.

GENERATOR = np.random.default_rng(0)


def picture(size=(12, 10), channels=3):
    pixels = GENERATOR.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def write_images(folder, names, size=(12, 10)):
    """Image files of noise, in the format of their suffix."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(size).save(folder / name)


# Run directories.


def unsealed(directory: Path) -> Path:
    """A run whose configuration and results a test may edit: without the checksums that a version before had not."""
    for name in ("run.json", "summary.json"):
        if (directory / name).is_file():
            content = json.loads((directory / name).read_text())
            content = {key: value for key, value in content.items() if key not in ("files", "checksum")}
            (directory / name).write_text(json.dumps(content))
    return directory
