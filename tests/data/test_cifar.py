"""Batches of CIFAR-10, written here as Python 2 wrote them; what damage is told; and pickles that would do harm."""

import contextlib
import copyreg
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import torch
from files import CIFAR_IMAGES as IMAGES
from files import CIFAR_LABELS as LABELS
from files import array, batch, write_cifar10
from hypothesis import given, settings
from hypothesis import strategies as st

from elslightning.data.cifar import ARCHIVE, FOLDER, cifar10, read_batch
from elslightning.data.request import Request
from elslightning.system.errors import InputError
from elslightning.system.pickles import read_pickle

pytestmark = pytest.mark.reliability


def pack(root, prefix=""):
    """Replaces the folder by the archive."""
    with tarfile.open(root / ARCHIVE, "w:gz") as archive:
        archive.add(root / FOLDER, prefix + FOLDER)
    for path in (root / FOLDER).iterdir():
        path.unlink()
    (root / FOLDER).rmdir()


def read(root):
    return cifar10(Request("cifar10", root, channels=3))


def test_batches_written_here_are_what_pickle_reads():
    with warnings.catch_warnings(action="ignore"):
        content = pickle.loads(batch(IMAGES[:2], [3, 0]), encoding="bytes")
        turned = pickle.loads(array(IMAGES[:2], columns_first=True) + b".", encoding="latin-1")
    np.testing.assert_array_equal(content[b"data"], IMAGES[:2].flatten(1))
    np.testing.assert_array_equal(turned, IMAGES[:2].flatten(1))
    assert content[b"labels"] == [3, 0]


@pytest.mark.parametrize("place", [".", FOLDER, "archive", "archive of ./"])
def test_training_batches_come_in_order_and_the_test_batch_is_for_validation(tmp_path, place):
    write_cifar10(tmp_path)
    if "archive" in place:
        pack(tmp_path, place.removeprefix("archive").removeprefix(" of "))
    train, val = read(tmp_path / FOLDER if place == "." else tmp_path)
    assert torch.equal(torch.cat([train.images, val.images]), IMAGES)
    assert train.labels.tolist() + val.labels.tolist() == LABELS
    assert len(val.images) == 2
    assert train.labels.dtype == torch.int64


def test_array_with_columns_first_is_the_same_array():
    content = batch(IMAGES[:3], [1, 2, 3], array(IMAGES[:3], columns_first=True))
    assert torch.equal(read_batch("here", content).images, IMAGES[:3])


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("keys", [("data", "labels"), (b"data", b"labels")])
def test_batches_that_python_3_wrote_are_read_too(keys, protocol):
    content = pickle.dumps(dict(zip(keys, (IMAGES[:3].flatten(1).numpy(), [1, 2, 3]), strict=True)), protocol)
    split = read_batch("here", content)
    assert torch.equal(split.images, IMAGES[:3])
    assert split.labels.tolist() == [1, 2, 3]


GOOD = batch(IMAGES[:2], [3, 0])
DAMAGED = {
    "empty": (b"", "cannot be read as a batch"),
    "cut": (GOOD[:-1], "cannot be read as a batch"),
    "a picture": (b"\x89PNG\r\n\x1a\n" * 4, "cannot be read as a batch"),
    "no dictionary": (pickle.dumps([1, 2]), "holds no dictionary"),
    "no data": (batch(IMAGES[:2], [3, 0], b"N"), "its data is not an array of bytes in rows of 3072"),
    "no labels": (pickle.dumps({"data": IMAGES[:2].flatten(1).numpy()}, 4), "its labels are not"),
    "of floats": (batch(IMAGES[:2], [3, 0], array(IMAGES[:2], kind=b"f4")), "its data is not an array of bytes"),
    "other rows": (batch(IMAGES[:2], [3, 0], array(IMAGES[:2, :, 1:], width=2976)), "not an array .* rows of 3072"),
    "short rows": (batch(IMAGES[:2], [3, 0], array(IMAGES[:2, :1])), "has 2048 bytes for 2 images, .* 3072"),
    "three dimensions": (pickle.dumps({"data": IMAGES[:2, 0].numpy(), "labels": [3, 0]}, 4), "its data is not"),
    "fewer labels": (batch(IMAGES[:2], [3]), "has 1 labels for 2 images"),
    "high label": (batch(IMAGES[:2], [3, 10]), "its labels are not a list of numbers 0 … 9"),
    "label of text": (pickle.dumps({"data": IMAGES[:1].flatten(1).numpy(), "labels": ["3"]}, 4), "its labels are not"),
    "deep key": (b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.", "cannot be read"),
    "huge memo": (b"\x80\x02}r\xff\xff\xff\xff.", "its data is not an array of bytes"),
    "huge length": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "cannot be read"),
    "huge number": (b"\x80\x02}(U\x04data(cnumpy.core.multiarray\n_reconstruct\noq\x01(NKKK\x01\x86NNNtb"
                    b"u.", "not an array|cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch"])
@pytest.mark.parametrize(("content", "complaint"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_batch_is_named(tmp_path, request, content, complaint, name):
    if len(content) > 2**17:  # the signatures of so many steps take twenty times as long to check as they take
        request.getfixturevalue("unchecked")
    write_cifar10(tmp_path, **{name: content})
    with pytest.raises(InputError, match=rf"{FOLDER}/{name} .*({complaint})") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch"])
def test_missing_batch_is_named_before_one_is_read(tmp_path, name):
    write_cifar10(tmp_path, data_batch_2=b"damaged", **{name: None})
    with pytest.raises(InputError, match=rf"{name} is not in .*{FOLDER}"):
        read(tmp_path)
    pack(tmp_path)
    with pytest.raises(InputError, match=rf"{name} is not in .*{ARCHIVE}"):
        read(tmp_path)


def test_missing_data_set_is_told(tmp_path):
    with pytest.raises(InputError, match=rf"data\.root={tmp_path} holds neither {FOLDER}/ nor {ARCHIVE}"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"data=cifar10 needs data\.root=FOLDER"):
        read(None)


def test_damaged_batch_in_an_archive_is_named(tmp_path):
    write_cifar10(tmp_path, data_batch_3=GOOD[:50])
    pack(tmp_path)
    with pytest.raises(InputError, match=rf"{FOLDER}/data_batch_3 in .*{ARCHIVE} cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("end", [0, 1, 10, 1000, -2000, -1])
def test_cut_archive_is_named(tmp_path, end):
    write_cifar10(tmp_path)
    pack(tmp_path)
    content = (tmp_path / ARCHIVE).read_bytes()
    (tmp_path / ARCHIVE).write_bytes(content[:end])
    with pytest.raises(InputError, match=ARCHIVE):
        read(tmp_path)


def test_archive_with_another_checksum_is_named(tmp_path):
    write_cifar10(tmp_path)
    pack(tmp_path)
    content = bytearray((tmp_path / ARCHIVE).read_bytes())
    content[-5] ^= 1
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(InputError, match=f"cannot read .*{ARCHIVE}: CRC"):
        read(tmp_path)


class Harmful:
    """Makes a folder when unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda harm: harm, lambda harm: {"data": harm}, lambda harm: {"labels": [harm]}])
def test_what_a_pickle_names_is_not_run_but_refused_by_name(tmp_path, wrap, protocol):
    write_cifar10(tmp_path, data_batch_3=pickle.dumps(wrap(Harmful(tmp_path / "canary")), protocol))
    with pytest.raises(InputError, match=r"data_batch_3 .* names (posix|nt)\.mkdir,"):
        read(tmp_path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["os system", "builtins eval", "numpy load", "numpy.core.multiarray fromfile"])
@pytest.mark.parametrize("form", ["called", "only named", "instance", "object"])
def test_any_name_but_those_of_arrays_is_refused(name, form):
    module, function = (part.encode() for part in name.split())
    where = module + b"\n" + function + b"\n"
    body = {
        "called": b"c" + where + b"U\x01x\x85R",
        "only named": b"c" + where,
        "instance": b"(U\x01xi" + where,
        "object": b"c" + where + b")\x81",
    }[form]
    with pytest.raises(InputError, match=f"here .* names {name.replace(' ', '.')},"):
        read_batch("here", b"\x80\x02" + body + b".")


@pytest.mark.parametrize(
    "body",
    [
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85R",  # an array larger than any memory
        b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R",  # an array of objects
        b"cnumpy\nndarray\n}U\x09__class__U\x01xsb",  # attributes of a class
        b"cnumpy.core.multiarray\n_reconstruct\n(N}U\x0c__setstate__Nstb",
    ],
)
def test_names_of_arrays_do_nothing_either(body):
    content = b"\x80\x02}U\x04data" + body + b"s."
    with pytest.raises(InputError, match=r"here .*(its data is not an array|cannot be read)"):
        read_batch("here", content)
    assert torch.equal(read_batch("here", GOOD).images, IMAGES[:2])


def test_registered_extensions_are_refused(tmp_path):
    copyreg.add_extension("os", "mkdir", 240)
    try:
        with pytest.raises(InputError, match=r"here .* instruction EXT1"):
            read_batch("here", b"\x80\x02\x82\xf0X\x01\x00\x00\x00x\x85R.")
    finally:
        copyreg.remove_extension("os", "mkdir", 240)


words = st.text(st.characters(exclude_categories=["Cs"]))  # all of UTF-8, which Hypothesis would find out by trying
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner) | st.dictionaries(words | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(values, st.integers(0, 5))
def test_plain_data_is_what_pickle_reads(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), "here") == value


SMALL = batch(IMAGES[:1], [7])


def test_batch_cut_anywhere_is_an_input_error():
    for end in (*range(0, 260), *range(260, len(SMALL), 97)):
        with pytest.raises(InputError, match="here cannot be read"):  # noqa: PT012
            read_batch("here", SMALL[:end])
            pytest.fail(f"cut after {end} bytes, it is read")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 260) | st.integers(len(SMALL) - 60, len(SMALL) - 1), st.integers(0, 255))))
def test_batch_with_other_bytes_is_an_input_error_or_a_batch(changes):
    content = bytearray(SMALL)
    for position, value in changes:
        content[position] = value
    with contextlib.suppress(InputError):
        split = read_batch("here", bytes(content))
        assert split.images.shape == (1, 3, 32, 32)
        assert split.labels.shape == (1,)
