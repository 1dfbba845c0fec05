"""Files of one comparison belong together: what was not written with a summary is not read with it."""

import json
import os
import random
from pathlib import Path

import pytest
from files import unsealed

from elslightning.runs.run import read_run
from elslightning.runs.writing import write
from elslightning.system.errors import InputError

pytestmark = pytest.mark.reliability

COMPARED = Path(__file__).resolve().parents[1] / "fixtures" / "version_0_1" / "run"


@pytest.fixture(scope="module")
def result():
    return read_run(COMPARED).result


@pytest.fixture
def run(result, tmp_path):
    """A run written by this version."""
    write(result, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_read_as_it_was_written(run, result):
    again = read_run(run).result
    assert again.comparison.rows == result.comparison.rows
    known = json.loads((run / "summary.json").read_text())["files"]
    assert known.keys() == {path.name for path in run.iterdir()} - {"summary.json"}


def test_twice_the_pairs_beside_an_old_summary_are_refused(run):
    """The medians need not change by it, nor the machines."""
    table = run / "comparison.csv"
    heading, *lines = table.read_text().splitlines()
    pairs = max(int(line.split(",")[0]) for line in lines) + 1
    more = [",".join([str(int(line.split(",")[0]) + pairs), *line.split(",")[1:]]) for line in lines]
    table.write_text("\n".join([heading, *lines, *more]) + "\n")
    with pytest.raises(InputError, match=r"comparison\.csv was not written with summary\.json") as caught:
        read_run(run)
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_in_a_result_goes_unnoticed(run):
    generator = random.Random(0)
    for path in sorted(run.iterdir()):
        whole = path.read_bytes()
        for _ in range(10 if path.name != "summary.json" else 0):
            spoilt = bytearray(whole)
            spoilt[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
            path.write_bytes(bytes(spoilt))
            with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
                read_run(run)
        path.write_bytes(whole)
    read_run(run)


@pytest.mark.parametrize("count", range(7))
def test_a_process_killed_between_two_files_leaves_none_that_are_taken_for_one_run(run, result, monkeypatch, count):
    """The files of another result take the names of those of an earlier one, as far as it comes."""
    other = read_run(run).result
    for row in other.comparison.rows:
        row["pearson_r"] = 0.5 * row["pearson_r"]
    before, names, replace = (run / "comparison.csv").read_bytes(), [], os.replace

    def killed(source, target):
        if Path(target).parent == run and ".tmp" not in Path(target).name:
            if len(names) == count:
                raise KeyboardInterrupt
            names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(other, run)
    monkeypatch.undo()
    assert names[:1] == ["summary.json"][:count]
    if (run / "comparison.csv").read_bytes() == before and not count:
        assert read_run(run).result.comparison.rows == result.comparison.rows
    elif "comparison.csv" not in names:
        with pytest.raises(InputError, match="was not written with"):
            read_run(run)


def test_what_was_removed_since_is_no_matter(run):
    (run / "samples.npz").unlink()
    assert read_run(run).result.comparison.network == {}


def test_a_summary_of_an_earlier_version_is_read(run):
    unsealed(run)
    read_run(run)
