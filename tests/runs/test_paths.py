"""Paths on command lines and in configurations: taken as they are typed, wherever a run goes on."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tiny import cli

from elslightning.runs.paths import READ, SHARED, WRITTEN, for_grammar, is_path, make_full, path_in
from elslightning.runs.run import started_in
from elslightning.system.errors import InputError

pytestmark = pytest.mark.reliability

NAMES = [
    "My Photos (1)",
    "a,b",
    "run=3,lr=0.1",
    "naïve 写真",
    "it's",
    'say "x"',
    "a\\",
    "[1]",
    "{a: b}",
    "null x",
    "-1",
    "'90s",
]
KEYS = [key.replace("*", "checkpoint") for key in (*READ, *SHARED, *WRITTEN)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", KEYS)
def test_a_path_is_taken_as_it_is_typed(key, name):
    (word,) = for_grammar([f"{key}=/pics/{name}"])
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value(), override.is_sweep_override()) == (key, f"/pics/{name}", False)
    assert path_in(word) == f"/pics/{name}"
    assert for_grammar([word]) == [word]  # what a run has kept is read again


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_so_is_any_other(name):
    (word,) = for_grammar([f"data.root=/{name}"])
    if "${" not in name:
        assert path_in(word) == str(Path(f"/{name}"))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_the_home_folder_is_found_in_every_key(monkeypatch, key, plus):
    monkeypatch.setenv("HOME", "/home/me")
    for value in ("~/x", '"~/x"', "'~/x'"):
        assert for_grammar([f"{plus}{key}={value}"]) == [f"{plus}{key}=/home/me/x"]


def test_relative_paths_of_what_is_read_become_full_and_directories_stay_hydras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_in(*for_grammar(["data.root=pics"])) == str(tmp_path / "pics")
    assert path_in(*for_grammar(["data.root=pics"], base="/other")) == "/other/pics"
    assert path_in(*for_grammar(["hydra.run.dir=my_run"])) == "my_run"


@pytest.mark.parametrize(
    "word",
    [
        *("data.root=null", "data.root=", "scales=5", "seed=1,2", "--multirun", "--config-dir=~/x", "~callbacks.ema"),
        *("hydra.run.dir=outputs/${now:%Y}", "data.root=${oc.env:DATA}", "data.train_size=3"),
    ],
)
def test_everything_else_stays_as_it_is(word):
    assert for_grammar([word]) == [word]


def test_several_paths_are_quoted_or_chosen():
    options = {"several": True}
    for value in ("'/x/a','/x/b c'", "choice('/x/a','/x/b c')"):
        (word,) = for_grammar([f"checkpoint={value}"], **options)
        override = OverridesParser.create().parse_override(word)
        assert list(override.sweep_string_iterator()) == ["/x/a", "'/x/b c'"]
    assert for_grammar(["scales=3,5"], **options) == ["scales=3,5"]
    with pytest.raises(InputError, match=r"checkpoint=a,b: a comma is part of a path; several paths are checkpoint=c"):
        for_grammar(["checkpoint=a,b"], **options)


def test_a_folder_with_a_comma_is_one_in_a_multirun_too(tmp_path):
    (tmp_path / "a,b").mkdir()
    (word,) = for_grammar([f"data.root={tmp_path}/a,b"], several=True)
    assert path_in(word) == f"{tmp_path}/a,b"


def test_paths_of_a_configuration_are_made_full():
    config = OmegaConf.create(
        {
            "data": {"root": "pics"},
            "scales": 5,
            "machines": {
                "checkpoint": {"path": "run"},
                "is": {},
                "soft_els": {"windows": "run/field.npz", "index": "kept"},
            },
            "resume": None,
        }
    )
    make_full(config, "/base")
    assert config.data.root == "/base/pics"
    assert config.machines.checkpoint.path == "/base/run"
    assert config.machines.soft_els.windows == "/base/run/field.npz"
    assert config.machines.soft_els.index == "/base/kept"
    assert (config.scales, config.resume) == (5, None)


def test_one_list_says_which_keys_are_paths():
    assert all(is_path(key) for key in KEYS)
    assert not any(is_path(key) for key in ("data", "data.dataset", "machines.is", "hydra.job.name", "scales.x"))


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_folder_of_any_name_is_refused_for_what_it_is(tmp_path, name):
    done = cli(
        "sample", "source=is", "data=folder", f"data.root={tmp_path / name}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert done.code == 2
    assert f"data.root={tmp_path / name} is not a folder" in done.err


def test_a_directory_below_the_home_folder_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = cli("sample", "source=is", "data.train_size=5", "steps=1", "num_samples=1", 'hydra.run.dir="~/a run"')
    assert done.code == 0, done.err
    assert (tmp_path / "home" / "a run" / "samples.npz").is_file()
    assert not (tmp_path / "~").exists()
    assert started_in(tmp_path / "home" / "a run") == tmp_path
    for words in (["export", "nothing"], ["report", "a", "b"]):
        assert "~" not in cli(*words, "output=~/x").err


def test_runs_started_in_the_same_second_find_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "outputs" / "sample" / "x"
    monkeypatch.setattr("elslightning.cli.output.NOW", "${verb}")
    for _ in range(2):
        words = ["sample", "source=is", "data.train_size=5", "steps=1", "num_samples=1"]
        done = cli(*words, "hydra.run.dir=outputs/${verb}/x")
        assert done.code == 0, done.err
    assert (first / "samples.npz").is_file()
    assert (first.with_name("x_2") / "samples.npz").is_file()
    for _ in range(2):
        done = cli("sample", "--multirun", *words[1:], "seed=1,2", "hydra.sweep.dir=outputs/${verb}/y")
        assert done.code == 0, done.err
    for name in ("y", "y_2"):
        assert {path.name for path in first.with_name(name).iterdir() if path.is_dir()} >= {"0", "1"}
        assert (first.with_name(name) / "sweep.csv").is_file()


def test_roots_are_found_where_hydra_changes_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("sample", "source=is", "data=folder", "data.root=none", "hydra.job.chdir=true", "hydra.run.dir=run")
    assert done.code == 2
    assert f"data.root={tmp_path / 'none'} is not a folder" in done.err
