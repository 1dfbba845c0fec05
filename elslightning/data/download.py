"""Fetching data sets through torchvision."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from elslightning.system.errors import InputError

DOWNLOADS: dict[str, Any] = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}


def download(dataset: str, root: str | Path) -> None:
    """Fetches a data set of `DOWNLOADS` into the folder `root`, in torchvision's layout.

    torchvision compares the checksums. Every file appears under its name only when all are complete, so that
    neither an interruption nor another process with the same errand leaves half a file. Archives are not kept.

    Raises:
        InputError: if it fails, saying how else the files can be had.
    """
    fetch, root = DOWNLOADS[dataset], Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            with contextlib.redirect_stdout(sys.stderr):
                fetch(temporary, download=True)
            for path in sorted(Path(temporary).rglob("*")):
                if path.is_file() and path.suffix != ".gz":
                    target = root / path.relative_to(temporary)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, target)
    except Exception as error:  # whatever a network, an archive or a disk can come up with
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{dataset} cannot be downloaded to data.root={root}: {reason}; elsewhere, "
            f"torchvision.datasets.{fetch.__name__}(FOLDER, download=True) makes a folder that can be copied there"
        ) from error
