"""Downloads, from this machine instead of the network: complete or not at all, and only when asked for."""

import functools
import gzip
import hashlib
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from files import CIFAR_IMAGES as COLOURED
from files import IDX_IMAGES as IMAGES
from files import write_cifar10, write_idx
from torchvision.datasets import CIFAR10, MNIST

from elslightning.data import download
from elslightning.data.module import ImageDataModule
from elslightning.system.errors import InputError

pytestmark = pytest.mark.reliability


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Of a server of the files in a folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def served(tmp_path, monkeypatch, address):
    """Has torchvision find small files of MNIST and CIFAR-10 on this machine; returns the folder they are in."""
    server = tmp_path / "server"
    write_idx(server, packed=True)
    monkeypatch.setattr(MNIST, "mirrors", [f"{address}/"])
    monkeypatch.setattr(MNIST, "resources", [(path.name, md5(path)) for path in sorted(server.iterdir())])
    write_cifar10(server)
    batches = server / "cifar-10-batches-py"
    (batches / "batches.meta").write_bytes(b"\x80\x02}U\x0blabel_names]s.")
    archive = server / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(batches, "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, [(file, md5(batches / file)) for file, _ in getattr(CIFAR10, name)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    return server


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


MNIST_FILES = [f"MNIST/raw/{part}-{kind}" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")]


def test_mnist_is_fetched_into_the_folder_once(served, tmp_path, capsys):
    root = tmp_path / "new" / "data"
    module = ImageDataModule("mnist", root=root, download=True)
    module.setup()
    assert torch.equal(module.train_images, IMAGES[:, None].float() / 127.5 - 1)
    assert files(root) == [f"{name}-ubyte" for name in MNIST_FILES]
    assert list(root.iterdir()) == [root / "MNIST"]
    assert capsys.readouterr().out == ""
    for path in served.glob("*.gz"):
        path.unlink()
    ImageDataModule("mnist", root=root, download=True).setup()
    ImageDataModule("mnist", root=root).setup()


def test_cifar10_is_fetched_without_its_archive(served, tmp_path):
    module = ImageDataModule("cifar10", channels=3, root=tmp_path / "data", download=True)
    module.setup()
    assert torch.equal(module.train_images[:2], COLOURED[:2].float() / 127.5 - 1)
    assert all(name.startswith("cifar-10-batches-py/") for name in files(tmp_path / "data"))


def test_one_missing_file_is_fetched_too(served, tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", t10k_labels_idx1_ubyte=None)
    ImageDataModule("mnist", root=tmp_path, download=True).setup()


def test_nothing_is_fetched_unless_asked(served, tmp_path):
    (tmp_path / "data").mkdir()
    for root in (tmp_path / "data", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"data\.root=.*; data\.download=true fetches it$"):
            ImageDataModule("mnist", root=root).setup()
    assert files(tmp_path / "data") == []


def test_data_sets_that_cannot_be_fetched_do_not_offer_it(tmp_path):
    with pytest.raises(InputError, match=r"is not a folder: data=celeba needs a folder of images$"):
        ImageDataModule("celeba", root=tmp_path / "nowhere").setup()


def test_folder_to_download_to_is_demanded():
    with pytest.raises(InputError, match=r"data=mnist needs data\.root=FOLDER"):
        ImageDataModule("mnist", download=True).setup()


@pytest.mark.parametrize("name", list(download.DOWNLOADS))
def test_without_a_network_one_line_says_what_to_do(name, tmp_path):
    with pytest.raises(
        InputError, match=rf"{name} cannot be downloaded to data\.root=.*offline.*download=True"
    ) as error:
        ImageDataModule(name, root=tmp_path / "data", download=True).setup()
    assert "\n" not in str(error.value)
    assert files(tmp_path) == []


def test_download_with_a_wrong_checksum_leaves_nothing(served, tmp_path):
    for path in served.glob("train-images*"):
        path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(InputError, match=r"mnist cannot be downloaded to .*train-images-idx3-ubyte"):
        ImageDataModule("mnist", root=tmp_path / "data", download=True).setup()
    assert files(tmp_path / "data") == []


def test_folder_that_cannot_be_written_is_named(served, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be downloaded to data\.root=.*file/data: "):
        ImageDataModule("mnist", root=tmp_path / "file" / "data", download=True).setup()
