"""Files are whole or not there."""

import contextlib
import csv
import json

import numpy as np
import pytest
import torch
import yaml

from elslightning.system import files
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, replacing, write_arrays, write_csv, write_json, write_text

pytestmark = pytest.mark.reliability


class Failure(Exception):
    """What goes wrong while writing."""


def failing_rows():
    yield {"a": 1}
    raise Failure


WRITERS = {
    "text": lambda path: write_text(path, None),
    "json": lambda path: write_json(path, {"a": object()}),
    "nan": lambda path: write_json(path, {"a": float("nan")}),
    "csv": lambda path: write_csv(path, failing_rows()),
    "arrays": lambda path: write_arrays(path, {"a": object()}),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_block_without_error_replaces_the_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


def test_failing_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with contextlib.suppress(Failure), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise Failure
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_failing_block_leaves_nothing_where_nothing_was(tmp_path):
    with contextlib.suppress(Failure), replacing(tmp_path / "result.txt") as temporary:
        temporary.write_text("half of the n")
        raise Failure
    assert names(tmp_path) == []


def test_error_of_the_block_comes_through(tmp_path):
    with pytest.raises(Failure), replacing(tmp_path / "result.txt"):
        raise Failure


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_failing_writer_leaves_the_old_file_and_no_other(tmp_path, write, request):
    request.getfixturevalue("unchecked")
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises((Failure, TypeError, ValueError, AttributeError)):
        write(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result"]


def test_folders_are_made_on_the_way(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "text", "ᾱ, 95 %")
    assert (tmp_path / "text").read_bytes() == "ᾱ, 95 %".encode()


@pytest.mark.parametrize("content", [{"a": [1, 2.5, None], "b": {"c": "ä"}}, [], "text", 1e-300])
def test_json_comes_back_as_it_went(tmp_path, content):
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content
    assert json.loads((tmp_path / "file.json").read_text()) == content


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"a": [0.0, value]})
    assert names(tmp_path) == []


def test_missing_json_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\x89PNG\r\n\x1a\n\xff"])
def test_what_is_not_json_is_named(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.json is not a JSON file"):
        read_json(tmp_path / "file.json")


def test_csv_has_the_keys_as_its_heading_and_none_as_an_empty_cell(tmp_path):
    write_csv(tmp_path / "file.csv", [{"a": 1, "b": "x, y"}, {"a": None, "b": 0.1}])
    with (tmp_path / "file.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", "x, y"], ["", "0.1"]]


def test_arrays_come_back_as_they_went(tmp_path):
    arrays = {"images": torch.rand(2, 1, 3, 3), "labels": torch.tensor([4, 2])}
    write_arrays(tmp_path / "file.npz", arrays)
    with np.load(tmp_path / "file.npz") as read:
        assert sorted(read) == ["images", "labels"]
        for name, array in arrays.items():
            assert read[name].dtype == array.numpy().dtype
            np.testing.assert_array_equal(read[name], array.numpy())
    assert names(tmp_path) == ["file.npz"]


def test_configurations_are_parsed_in_c_where_that_is_built():
    assert hasattr(files._config_loader(), "raw_parse") == yaml.__with_libyaml__
