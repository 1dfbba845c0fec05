"""IDX files, written here byte by byte; the folders in which they are looked for; and what damage is told."""

import contextlib
import gzip
import tempfile
from pathlib import Path

import pytest
import torch
from files import IDX_IMAGES as IMAGES
from files import IDX_LABELS as LABELS
from files import idx, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

from elslightning.data.idx import find_idx, read_idx
from elslightning.data.module import ImageDataModule
from elslightning.data.request import Request
from elslightning.data.sources import SOURCES
from elslightning.system.errors import InputError

pytestmark = pytest.mark.reliability


def read(root, name="fashion_mnist"):
    return SOURCES[name](Request(name, root))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("tensor", [IMAGES, LABELS], ids=["images", "labels"])
def test_file_gives_the_tensor_back(tmp_path, tensor, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx(tensor)) if packed else idx(tensor))
    read = read_idx(path, tensor.ndim)
    assert read.dtype == torch.uint8
    assert torch.equal(read, tensor)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "."),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "."),
        ("fashion_mnist", "raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_data_set_is_found_also_where_torchvision_puts_it(tmp_path, name, place, packed):
    write_idx(tmp_path / place, packed)
    train, val = read(tmp_path, name)
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
    "bytes left over": (CONTENT + b"\0", rf"has more than {len(CONTENT)} bytes"),
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
    "content",
    [gzip.compress(CONTENT)[:-20], CONTENT, b"", gzip.compress(CONTENT)[:40] + bytes(50)],
    ids=["cut", "not packed", "empty", "damaged"],
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
    write_idx(tmp_path, train_labels_idx1_ubyte=idx(LABELS[:4]))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte has 4 labels for the 5 images of"):
        read(tmp_path)


def test_missing_part_of_the_data_set_is_named(tmp_path):
    write_idx(tmp_path, t10k_labels_idx1_ubyte=None)
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        read(tmp_path)


def test_one_data_set_is_not_taken_for_the_other(tmp_path):
    write_idx(tmp_path / "FashionMNIST" / "raw")
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte or .*nor in its raw/ or MNIST/raw/"):
        read(tmp_path, "mnist")


def test_all_files_are_looked_for_before_one_is_read(tmp_path):
    write_idx(tmp_path, train_images_idx3_ubyte=b"damaged", t10k_labels_idx1_ubyte=None)
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte or .* is not in"):
        read(tmp_path)


def test_data_set_without_images_is_refused(tmp_path):
    write_idx(tmp_path, t10k_images_idx3_ubyte=idx(IMAGES[:0]), t10k_labels_idx1_ubyte=idx(LABELS[:0]))
    module = ImageDataModule("mnist", root=tmp_path)
    with pytest.raises(InputError, match="mnist has no val images"):
        module.setup()


def test_folder_is_demanded(tmp_path):
    with pytest.raises(InputError, match=r"data=mnist needs data\.root=FOLDER"):
        read(None, "mnist")
    with pytest.raises(InputError, match=r"data\.root=.*nowhere is not a folder"):
        read(tmp_path / "nowhere")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_to_a_file_is_an_input_error_or_harmless(data):
    content = bytearray(idx(IMAGES[:1, :3, :3]))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        path.write_bytes(content[:end])
        with contextlib.suppress(InputError):
            assert read_idx(path, 3).numel() == end - 16
