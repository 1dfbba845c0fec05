"""What is damaged in a run directory is not used: the files that no other file vouches for vouch for themselves."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from files import unsealed
from jobs import job
from omegaconf import OmegaConf
from tiny import cli

from elslightning.report.sweep import report
from elslightning.runs.belonging import check_seal, configuration_checksums, read_sealed, sealed
from elslightning.runs.jobs import read_job
from elslightning.runs.metrics import CHECK, checked_row, read_metrics
from elslightning.runs.provenance import write_record
from elslightning.runs.run import read_run
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, write_csv, write_json

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

FILES = (".hydra/config.yaml", ".hydra/overrides.yaml", "run.json", "metrics.csv", "summary.json")


@pytest.fixture
def run(trained_once, tmp_path) -> Path:
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def flipped(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def complaint(read: Callable[[], object], expected: object) -> str | None:
    """Why reading refuses; None where what is read is as it was."""
    try:
        found = read()
    except InputError as error:
        return str(error)
    assert found == expected
    return None


def used(directory: Path) -> tuple:
    run = read_run(directory)
    config = OmegaConf.to_container(run.config, resolve=False)
    return config, run.overrides, run.record, run.summary, read_metrics(directory / "metrics.csv")


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_is_used(run, name):
    whole, expected, dice, noticed = (run / name).read_bytes(), used(run), random.Random(0), 0
    for _ in range(5):
        (run / name).write_bytes(whole)
        flipped(run / name, dice.randrange(len(whole)), dice.randrange(8))
        if (said := complaint(lambda: used(run), expected)) is not None:
            assert str(run / name) in said
            assert "\n" not in said
            noticed += 1
    assert noticed > 2


def test_no_bit_of_a_record_and_of_a_table_that_grows_can_flip(tmp_path):
    """Those of their checksums, keys and headings as well."""
    write_json(tmp_path / "run.json", sealed({"seed": 0, "data_sha256": "a1b2", "lr": 0.25}))
    rows = [{"epoch": 0, "step": 3, "val/loss": None, "train/loss": 0.5}, {"step": 7, "val/loss": 0.25}]
    names = ["epoch", "step", "val/loss", "train/loss", CHECK]
    write_csv(tmp_path / "metrics.csv", ({name: row.get(name) for name in names} for row in map(checked_row, rows)))
    for path, read in ((tmp_path / "run.json", read_sealed), (tmp_path / "metrics.csv", read_metrics)):
        whole, expected = path.read_bytes(), read(path)
        assert expected
        for place in range(len(whole)):
            for bit in range(8):
                path.write_bytes(whole)
                flipped(path, place, bit)
                assert path.name in (complaint(partial(read, path), expected) or path.name)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (".hydra/config.yaml", "seed: 0", "seed: 1"),
        (".hydra/overrides.yaml", "data.train_size=40", "data.train_size=44"),
        ("metrics.csv", "0.", "1."),
        ("run.json", '"seed": 0', '"seed": 1'),
    ],
)
def test_a_training_does_not_go_on_from_a_damaged_file(run, name, before, after):
    edited(run / name, before, after)
    done = cli("train", f"resume={run}", "trainer.max_epochs=2")
    assert done.code == 2
    assert done.err.startswith(f"elslightning: error: {run / name} ")
    assert done.err.count("\n") == 1


def test_a_comparison_takes_no_losses_from_a_damaged_file(run, tmp_path):
    edited(run / "metrics.csv", "0.", "1.")
    done = cli("compare", f"checkpoint={run}", "machines=[is]", "report=false", f"hydra.run.dir={tmp_path / 'new'}")
    assert (done.code, str(run / "metrics.csv") in done.err) == (2, True)
    assert not (tmp_path / "new" / "comparison.csv").exists()


def test_comments_in_a_configuration_are_no_matter(run):
    config = run / ".hydra" / "config.yaml"
    config.write_text(f"# ours\n{config.read_text()}\n")
    assert used(run)


def test_whoever_edits_a_configuration_is_told_how_to_go_on(run):
    config = run / ".hydra" / "config.yaml"
    edited(config, "seed: 0", "seed: 3")
    with pytest.raises(InputError) as caught:
        read_run(run)
    assert str(caught.value) == (
        f"{config} was not written with run.json: put it back, or, if it was edited on purpose, take "
        '".hydra/config.yaml" and "checksum" out of run.json'
    )
    record = read_json(run / "run.json")
    del record["files"][".hydra/config.yaml"], record["checksum"]
    write_json(run / "run.json", record)
    assert read_run(run).setting("seed") == 3


def test_a_training_that_goes_on_keeps_what_it_began_with_in_its_record(run):
    done = cli("train", f"resume={run}", "trainer.max_epochs=2")
    assert done.code == 0, done.err
    record = read_sealed(run / "run.json")
    assert record["files"].items() >= configuration_checksums(run).items()
    assert len(record["resumed"]) == 1
    flipped(run / ".hydra" / "config.yaml", 3, 0)
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_run(run)


def test_files_of_an_earlier_version_are_read(run):
    unsealed(run)
    rows = [{name: text for name, text in row.items() if name != CHECK} for row in read_metrics(run / "metrics.csv")]
    names = dict.fromkeys(name for row in rows for name in row)
    write_csv(run / "metrics.csv", ({name: row.get(name) for name in names} for row in rows))
    assert read_run(run).losses


def test_values_have_the_same_checksum_before_they_are_written_and_after(tmp_path):
    content = {"whole": 10**20, "real": 0.1 + 0.2, "by": {2: 1.0, 10: None}, "several": (1, "ä"), "b": True}
    write_json(tmp_path / "some.json", sealed(content))
    check_seal(tmp_path / "some.json", read_json(tmp_path / "some.json"))
    assert sealed(sealed(content)) == sealed(content)


# Sweeps.


@pytest.fixture
def sweep(tmp_path) -> Path:
    for number in (0, 1):
        directory = job(tmp_path / str(number), number + 1)
        write_json(directory / "summary.json", sealed(read_json(directory / "summary.json")))
        write_record(directory, {"files": configuration_checksums(directory)})
    assert report(tmp_path).skipped() is None
    return tmp_path


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (".hydra/config.yaml", "width: 16", "width: 17"),
        ("run.json", '"files"', '"filet"'),
        ("summary.json", '"pairs": 4', '"pairs": 5'),
        ("job.json", '"seconds": 1.5', '"seconds": 1.4'),
    ],
)
def test_a_damaged_job_is_named_and_left_out_of_the_report_of_a_sweep(sweep, name, before, after):
    edited(sweep / "1" / name, before, after)
    skipped = report(sweep).skipped()
    assert skipped.startswith("1 of 2 jobs did not finish: 1 (")
    assert str(sweep / "1" / name) in skipped


def test_other_overrides_than_those_of_a_job_are_another_job(sweep):
    edited(sweep / "1" / ".hydra" / "overrides.yaml", "num_layers=2", "num_layers=3")
    assert report(sweep).skipped().startswith("1 of 2 jobs did not finish: 1 (")


def test_a_job_with_a_damaged_record_is_not_finished(sweep):
    edited(sweep / "1" / "job.json", "0.5", "0.6")
    assert "job.json is damaged" in read_job(sweep / "1").error


def test_history_from_a_damaged_table_is_left_out(tmp_path):
    directory = job(tmp_path / "0", 1, sweep={"question": "When?", "x": "step", "history": True})
    table = [{"step": 5, "val/bbels/pearson_r_median": 0.5}, {"step": 9, "val/bbels/pearson_r_median": 0.75}]
    write_csv(directory / "metrics.csv", map(checked_row, table))
    assert report(tmp_path).skipped() is None
    edited(directory / "metrics.csv", "0.75", "0.76")
    assert "metrics.csv is damaged" in report(tmp_path).skipped()
