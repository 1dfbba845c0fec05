"""Configuration files of one's own."""

import codecs

import pytest
from tiny import cli

from elslightning.cli.composing import check_own
from elslightning.system.errors import InputError
from elslightning.system.files import read_config, read_csv, read_json

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("flag", ["--config-dir", "-cd", "--config-path"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_byte_order_mark_that_would_hide_the_first_line_is_named(tmp_path, flag, joined):
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_bytes(b"# @package _global_\nseed: 3\n")
    words = [f"{flag}={tmp_path}"] if joined else [flag, str(tmp_path)]
    check_own(["sample", *words, "seed=1"])
    mine.write_bytes(codecs.BOM_UTF8 + mine.read_bytes())
    with pytest.raises(InputError, match=f"{mine} begins with a byte-order mark: save it as UTF-8 without one"):
        check_own(["sample", *words, "seed=1"])
    done = cli("sample", *words, "experiment=mine", f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert not (tmp_path / "run").exists()


def test_files_that_are_read_back_may_begin_with_one(tmp_path):
    for name, content in (("a.json", '{"a": 1}'), ("a.csv", "a,b\n1,2\n"), ("a.yaml", "a: 1\n")):
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + content.encode())
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert read_csv(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]
    assert read_config(tmp_path / "a.yaml") == {"a": 1}
