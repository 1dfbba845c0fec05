"""IDX files, written here byte by byte; the folders in which they are looked for; and what damage is told."""

import gzip
import struct

import pytest
import torch

from elslightning.data.idx import find_idx, read_idx
from elslightning.data.sources import fashion_mnist
from elslightning.errors import InputError

IMAGES = torch.arange(5 * 28 * 28).remainder(256).to(torch.uint8).reshape(5, 28, 28)
LABELS = torch.tensor([3, 0, 9, 1, 3], dtype=torch.uint8)


def idx(tensor, *, kind=0x08, dimensions=None):
    """The bytes of an IDX file."""
    header = bytes([0, 0, kind, dimensions or tensor.ndim])
    return header + struct.pack(f">{tensor.ndim}I", *tensor.shape) + tensor.numpy().tobytes()


def write_fashion_mnist(folder, packed=False, **replaced):
    """The four files, all of five images; `replaced` gives other bytes for some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train-images-idx3-ubyte": idx(IMAGES),
        "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(255 - IMAGES[:3]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:3]),
    }
    for name, content in (files | {key.replace("_", "-"): value for key, value in replaced.items()}).items():
        if content is not None:
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("tensor", [IMAGES, LABELS], ids=["images", "labels"])
def test_file_gives_the_tensor_back(tmp_path, tensor, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx(tensor)) if packed else idx(tensor))
    read = read_idx(path, tensor.ndim)
    assert read.dtype == torch.uint8
    assert torch.equal(read, tensor)


@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_data_set_is_found_also_where_torchvision_puts_it(tmp_path, place, packed):
    write_fashion_mnist(tmp_path / place, packed)
    train, val = fashion_mnist(tmp_path)
    assert torch.equal(train.images, IMAGES[:, None])
    assert train.labels.tolist() == LABELS.tolist()
    assert train.labels.dtype == torch.int64
    assert torch.equal(val.images, 255 - IMAGES[:3, None])
    assert val.labels.tolist() == LABELS[:3].tolist()


def test_plain_file_is_taken_before_the_gzipped_one(tmp_path):
    for name in ("file", "file.gz"):
        (tmp_path / name).write_bytes(b"")
    assert find_idx(tmp_path, "file", "FashionMNIST") == tmp_path / "file"


CONTENT = idx(IMAGES)
DAMAGED = {
    "empty": (b"", "not an IDX file"),
    "header cut": (CONTENT[:11], "not an IDX file"),
    "pixels cut": (CONTENT[:-1], rf"has {len(CONTENT) - 1} bytes where .* says {len(CONTENT)}"),
    "bytes left over": (CONTENT + b"\0", rf"has {len(CONTENT) + 1} bytes"),
    "wrong magic": (b"\1" + CONTENT[1:], "not an IDX file"),
    "of floats": (idx(IMAGES, kind=0x0D), "not an IDX file of bytes"),
    "of labels": (idx(LABELS), "not an IDX file of bytes in 3 dimensions"),
    "a picture": (b"\x89PNG\r\n\x1a\n" * 4, "not an IDX file"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("content", "complaint"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_named(tmp_path, content, complaint, packed):
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=f"{path.name}.*{complaint}"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "content", [gzip.compress(CONTENT)[:-20], CONTENT, b"", gzip.compress(CONTENT)[:40] + bytes(50)]
)
def test_damaged_gzip_is_named(tmp_path, content):
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"images\.gz"):
        read_idx(tmp_path / "images.gz", 3)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nothing"):
        read_idx(tmp_path / "nothing", 3)
    with pytest.raises(InputError, match=rf"t10k or t10k\.gz is not in data\.root={tmp_path}"):
        find_idx(tmp_path, "t10k", "FashionMNIST")


def test_labels_must_be_as_many_as_images(tmp_path):
    write_fashion_mnist(tmp_path, train_labels_idx1_ubyte=idx(LABELS[:4]))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte has 4 labels for the 5 images of"):
        fashion_mnist(tmp_path)


def test_missing_part_of_the_data_set_is_named(tmp_path):
    write_fashion_mnist(tmp_path, t10k_labels_idx1_ubyte=None)
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        fashion_mnist(tmp_path)


def test_folder_is_demanded(tmp_path):
    with pytest.raises(InputError, match=r"data\.root=FOLDER"):
        fashion_mnist(None)
    with pytest.raises(InputError, match=r"data\.root=.*nowhere is not a folder"):
        fashion_mnist(tmp_path / "nowhere")
