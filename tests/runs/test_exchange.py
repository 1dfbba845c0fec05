"""Importing a network of the paper's code: the checkpoint it becomes, and the verbs that take it."""

import csv
import pickle

import papers
import pytest
import torch
from tiny import MEASUREMENT, cli, snapshot

from elslightning.cli.main import HELP
from elslightning.cli.tools import TOOLS
from elslightning.machines.scales import load_scales
from elslightning.networks import load_official
from elslightning.runs.checkpoints import open_network
from elslightning.runs.exchange import import_official
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise

pytestmark = pytest.mark.usefixtures("no_drawing")

DATA = ["data=digits", "data.train_size=40", "data.val_size=10"]


@pytest.fixture
def official(tmp_path):
    """A conditional UNet of the paper's code, in a file."""
    torch.manual_seed(0)
    network = papers.DDIM(papers.MinimalUNet(fsizes=(4, 8), conditional=True))
    return papers.save(network, tmp_path / "official.pt")


def test_checkpoint_holds_the_network(official):
    path = import_official(official)
    assert path == official.with_suffix(".ckpt")
    loaded, config = open_network(path)
    x_t, labels = random_noise(2, 1, 8, 8).float(), torch.tensor([7, 0])
    expected = load_official(official).eps(x_t, levels(0.1, 0.9), labels)
    assert torch.equal(loaded.eps(x_t, levels(0.1, 0.9), labels), expected)
    assert set(config) == {"denoiser", "schedule"}
    assert config["denoiser"]["_target_"] == "elslightning.UNet"
    assert (config["denoiser"]["width"], config["denoiser"]["num_levels"]) == (4, 2)


def test_nothing_is_overwritten_and_nothing_else_left(official):
    path = import_official(official)
    before = snapshot(official.parent)
    with pytest.raises(InputError, match=rf"output={path} exists already"):
        import_official(official)
    with pytest.raises(InputError, match=rf"output={official} exists already"):
        import_official(official, official)
    with pytest.raises(InputError, match="exists already"):
        import_official(official, official.parent)
    assert snapshot(official.parent) == before


def test_a_refused_file_leaves_no_checkpoint(official, tmp_path):
    official.write_bytes(official.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"official\.pt is damaged"):
        import_official(official, tmp_path / "out" / "new.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["official.pt"]


def test_a_place_that_cannot_be_written_is_named(official):
    output = official / "new.ckpt"
    with pytest.raises(InputError, match=rf"cannot write output={output}: "):
        import_official(official, output)


# On the command line.


def test_the_help_lists_it():
    assert "import-official  turn a network trained by the paper's code into a checkpoint" in HELP
    for flag in ("--help", "-h"):
        done = cli("import-official", flag)
        assert (done.code, done.err) == (0, "")
        assert TOOLS["import-official"].help in done.out


def test_it_says_where_the_checkpoint_is(official, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("import-official", "official.pt")
    assert (done.code, done.out, done.err) == (0, "files: official.ckpt\n", "")
    done = cli("import-official", "official.pt", "output=models/other.ckpt")
    assert (done.code, done.out) == (0, "files: models/other.ckpt\n")
    assert set(snapshot(tmp_path)) == {"official.pt", "official.ckpt", "models/other.ckpt"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.pt", "b.pt"],
        ["output=a.ckpt"],
        ["a.pt", "output="],
        ["a.pt", "output=b", "output=c"],
        ["--force", "a.pt"],
        ["-x"],
    ],
    ids=str,
)
def test_other_arguments_are_refused_with_the_usage(arguments):
    done = cli("import-official", *arguments)
    assert done.code == 2
    assert done.err == "elslightning: error: usage: elslightning import-official FILE.pt [output=PATH]\n"


@pytest.mark.parametrize("name", ["missing.pt", "", "evil.pt"])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    done = cli("import-official", name)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("elslightning: error: ")
    assert name in line


@pytest.fixture
def imported(official):
    """The checkpoint of that network."""
    return import_official(official)


def test_an_imported_network_is_calibrated_compared_and_sampled(imported, tmp_path):
    options = [f"checkpoint={imported}", *DATA, "machines=[ls]"]
    done = cli("calibrate", *options, *MEASUREMENT, f"hydra.run.dir={tmp_path / 'scales'}")
    assert done.code == 0, done.err
    assert set(load_scales(tmp_path / "scales" / "scales.json")) == {"ls"}
    done = cli("compare", *options, *MEASUREMENT, "scales=3", f"hydra.run.dir={tmp_path / 'compare'}")
    assert done.code == 0, done.err
    with (tmp_path / "compare" / "comparison.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    options = [f"checkpoint={imported}", *DATA, "num_samples=2", "steps=1", f"hydra.run.dir={tmp_path / 'sample'}"]
    done = cli("sample", *options)
    assert done.code == 0, done.err


@pytest.mark.parametrize("verb", ["calibrate", "compare", "sample"])
def test_the_data_of_an_imported_network_must_be_named(imported, tmp_path, verb):
    options = [f"checkpoint={imported}", "data.train_size=40", f"hydra.run.dir={tmp_path / 'run'}"]
    done = cli(verb, *options)
    assert done.code == 2
    assert done.err == (
        f"elslightning: error: checkpoint={imported} does not say which data it was trained on: give data=NAME\n"
    )


def test_scales_of_another_run_are_not_taken_for_those_of_an_imported_network(official, tmp_path):
    imported = import_official(official, tmp_path / "models" / "network.ckpt")
    (tmp_path / "scales.json").write_text('{"ls": {"alpha_bar": [0.5], "patch_size": [7]}}')
    options = [f"checkpoint={imported}", *DATA, "machines=[ls]", *MEASUREMENT, f"hydra.run.dir={tmp_path / 'run'}"]
    done = cli("compare", *options)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "calibration.csv").is_file()


@pytest.mark.parametrize("verb", ["compare", "sample"])
def test_a_scale_file_of_the_papers_code_serves_all_machines(imported, tmp_path, verb):
    path = tmp_path / "scales_digits.pt"
    torch.save([3, 3, 5, 7], path)
    options = [f"checkpoint={imported}", *DATA, f"scales={path}", f"hydra.run.dir={tmp_path / 'run'}"]
    small = ["num_samples=2", "steps=4", "source=bbels"] if verb == "sample" else ["machines=[ls,bbels]", *MEASUREMENT]
    done = cli(verb, *options, *small)
    assert done.code == 0, done.err
    if verb == "compare":
        tables = load_scales(tmp_path / "run" / "scales.json")
        assert {name: table.patch_size.tolist() for name, table in tables.items()} == {
            "ls": [3, 3, 5, 7],
            "bbels": [3, 3, 5, 7],
        }


def test_a_damaged_scale_file_is_refused_in_one_line(imported, tmp_path):
    path = tmp_path / "scales.pt"
    path.write_bytes(pickle.dumps(print))
    done = cli("compare", f"checkpoint={imported}", *DATA, f"scales={path}", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 2
    assert done.err == f"elslightning: error: {path} names builtins.print, which such a file has no use for\n"
