"""Files of torch.save: what is in them, and that other files are refused."""

import pickle
import zipfile

import pytest
import torch

from elslightning.system.errors import InputError
from elslightning.system.torchfiles import TorchFile, read_plain

pytestmark = pytest.mark.reliability

VALUE = [3, 5, {"a": (1.5, None)}]


def archive(path, **entries):
    """A zip archive of entries below one folder, stored unless told otherwise by `_compression`."""
    compression = entries.pop("_compression", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(f"archive/{name.replace('__', '/')}", content)
    return path


def refused(path, *parts):
    for read in (TorchFile, read_plain):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert all(part in str(caught.value) for part in parts), caught.value


def test_plain_data_comes_back(tmp_path):
    torch.save(VALUE, tmp_path / "saved.pt")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(VALUE))
    assert read_plain(tmp_path / "saved.pt") == read_plain(str(tmp_path / "bare.pkl")) == VALUE


def test_a_tensor_is_a_pickle_and_bytes(tmp_path):
    torch.save(torch.tensor([1.0, 2.0]), tmp_path / "saved.pt")
    file = TorchFile(tmp_path / "saved.pt")
    assert file.read("data/0") == torch.tensor([1.0, 2.0]).numpy().tobytes()
    assert b"_rebuild_tensor_v2" in file.pickle
    assert file.size == (tmp_path / "saved.pt").stat().st_size
    with pytest.raises(InputError, match=r"saved\.pt names torch\._utils\._rebuild_tensor_v2"):
        read_plain(tmp_path / "saved.pt")


def test_the_format_before_zip_archives_is_refused_by_its_name(tmp_path):
    torch.save(VALUE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", "in the format of torch before 1.6")


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "nothing.pt", "cannot read", "No such file")
    refused(tmp_path, "cannot read", "Is a directory")


def test_other_archives_are_refused(tmp_path):
    refused(archive(tmp_path / "empty.zip", readme=b"text"), "not a file of torch.save")
    deeper = archive(tmp_path / "deeper.zip", **{"inner__data.pkl": b"]."})
    refused(deeper, "not a file of torch.save")
    two = archive(tmp_path / "two.zip", **{"data.pkl": b"]."})
    with zipfile.ZipFile(two, "a") as file:
        file.writestr("other/data.pkl", b"].")
    refused(two, "not a file of torch.save")


def test_compressed_archives_are_refused(tmp_path):
    """A few bytes could stand for many."""
    path = archive(tmp_path / "packed.zip", _compression=zipfile.ZIP_DEFLATED, **{"data.pkl": b"]."})
    refused(path, "it is compressed")


def test_bytes_in_another_order_are_refused(tmp_path):
    path = archive(tmp_path / "big.zip", byteorder=b"big", **{"data.pkl": b"]."})
    refused(path, "another order of bytes")


def test_no_more_is_read_than_the_file_has(tmp_path):
    path = archive(tmp_path / "small.zip", **{"data.pkl": b"].", "data__0": bytes(1000)})
    file = TorchFile(path)
    file.read("data/0")
    with pytest.raises(InputError, match="longer than the file"):
        file.read("data/0")


def test_damaged_bytes_are_noticed(tmp_path):
    path = archive(tmp_path / "damaged.zip", **{"data.pkl": pickle.dumps(VALUE)})
    content = path.read_bytes()
    at = content.index(pickle.dumps(VALUE)) + 5
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    refused(path, "damaged: Bad CRC-32")


def test_every_truncation_is_refused(tmp_path):
    torch.save(VALUE, tmp_path / "saved.pt")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(VALUE))
    for name in ("saved.pt", "bare.pkl"):
        content = (tmp_path / name).read_bytes()
        for end in range(0, len(content), 7):
            (tmp_path / "cut").write_bytes(content[:end])
            with pytest.raises(InputError, match="cut"):
                read_plain(tmp_path / "cut")
