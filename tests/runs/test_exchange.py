"""Networks from the paper's code, and weights for elsewhere: what becomes of them, and what is refused."""

import csv
import json
import pickle
import random
from pathlib import Path

import papers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import MEASUREMENT, cli, digits, network, snapshot, trainer

from elslightning.cli.main import HELP
from elslightning.cli.tools import TOOLS
from elslightning.machines.scales import load_scales
from elslightning.networks.official import load_official
from elslightning.runs.checkpoints import open_network
from elslightning.runs.exchange import export, import_official
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise
from elslightning.training.task import DenoisingTask

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

DATA = ["data=digits", "data.train_size=40", "data.val_size=10"]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SECTIONS = {
    "denoiser": {"_target_": "elslightning.ResNet", "channels": 1, "width": 16, "num_layers": 1},
    "schedule": {"_target_": "elslightning.CosineSchedule", "stretch": 1.008},
}
BIAS = "backbone.down_projection.bias"


# Importing.


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


# Importing on the command line.


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


# Exporting.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a checkpoint."""
    directory = tmp_path_factory.mktemp("exporting") / "run"
    fitter = trainer(directory)
    fitter.fit(DenoisingTask(network(), config={**SECTIONS, "data": {"root": "/secret"}}), digits())
    fitter.save_checkpoint(directory / "checkpoints" / "last.ckpt")
    return directory


@pytest.fixture
def exported(trained, tmp_path):
    return export(trained, tmp_path / "network.safetensors")


@pytest.fixture
def parts(exported):
    """Tensors and strings of an exported file, to spoil."""
    with safe_open(exported, framework="pt") as file:
        tensors, strings = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    assert len(strings.pop("sha256")) == 64  # files of earlier versions have none, and are read as they are
    return tensors, strings


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        open_network(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_weights_and_configuration_come_back_bit_for_bit(trained, exported):
    (before, _), (after, config) = open_network(trained), open_network(exported)
    torch.testing.assert_close(after.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert config == SECTIONS
    assert not after.training


def test_the_file_says_what_it_holds_and_nothing_else(exported, parts):
    tensors, strings = parts
    assert set(strings) == {"elslightning", "denoiser", "schedule"}
    assert strings["elslightning"] == "1"
    assert {name: json.loads(strings[name]) for name in SECTIONS} == SECTIONS
    assert set(tensors) == set(open_network(exported)[0].state_dict())
    assert b"secret" not in exported.read_bytes()


def test_others_may_read_it_as_any_other_file(exported):
    other = exported.with_name("other")
    other.touch()
    assert exported.stat().st_mode == other.stat().st_mode


def test_export_overwrites_nothing_and_leaves_nothing_else(trained, exported):
    before = snapshot(exported.parent)
    with pytest.raises(InputError, match="exists already"):
        export(trained, exported)
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        export(trained, exported.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"cannot write output="):
        export(trained, exported / "below.safetensors")
    assert snapshot(exported.parent) == before


def test_no_flipped_bit_goes_unnoticed(exported):
    """In the tensors, and in what says how to build the network."""
    whole, generator, start = (
        exported.read_bytes(),
        random.Random(0),
        int.from_bytes(exported.read_bytes()[:8], "little"),
    )
    stretch = whole.index(b"1.008") + 4
    for position in [stretch, *generator.sample(range(8 + start, len(whole)), 60)]:
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << generator.randrange(3)
        exported.write_bytes(bytes(spoilt))
        assert "is damaged: its tensors or strings do not have its checksum" in refused(exported)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(exported, share):
    whole = exported.read_bytes()
    exported.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be read as safetensors" in refused(exported)


def test_damaged_headers_are_refused_or_harmless(exported):
    generator, whole = random.Random(0), exported.read_bytes()
    refusals = []
    for _ in range(60):
        spoilt = bytearray(whole)
        for position in generator.sample(range(1500), 3):
            spoilt[position] = generator.randrange(256)
        exported.write_bytes(bytes(spoilt))
        try:
            open_network(exported)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 30
    assert all("\n" not in refusal for refusal in refusals)


def test_a_torch_file_of_that_name_is_refused(trained, tmp_path):
    path = tmp_path / "renamed.safetensors"
    path.write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    assert "cannot be read as safetensors" in refused(path)


@pytest.mark.parametrize("strings", [None, {}, {"format": "pt"}], ids=str)
def test_weights_of_another_program_are_refused(parts, tmp_path, strings):
    save_file(parts[0], tmp_path / "foreign.safetensors", strings)
    assert "is not a checkpoint of elslightning" in refused(tmp_path / "foreign.safetensors")


STRINGS = {
    "newer": ({"elslightning": "2"}, "has checkpoint format 2; this version reads 1"),
    "no number": ({"elslightning": "new"}, "has checkpoint format new; this version reads 1"),
    "no JSON": ({"denoiser": "{"}, "does not say which network it holds"),
    "no section": ({"denoiser": "null"}, "does not say which network it holds"),
    "deep": ({"denoiser": "[" * 100_000}, "does not say which network it holds"),
    "nested": ({"denoiser": '{"a": ' * 900 + "1" + "}" * 900}, ""),
    "another width": ({"denoiser": json.dumps(SECTIONS["denoiser"] | {"width": 32})}, "size mismatch for backbone."),
    "another kind": (
        {"denoiser": json.dumps({"_target_": "elslightning.UNet", "channels": 1, "width": 8})},
        "it lacks",
    ),
    "code": ({"denoiser": json.dumps({"_target_": "os.system", "command": "false"})}, "names os.system"),
}


@pytest.mark.parametrize("name", STRINGS)
def test_strings_that_do_not_fit_are_refused(parts, tmp_path, name):
    tensors, strings = parts
    change, message = STRINGS[name]
    save_file(tensors, tmp_path / "spoilt.safetensors", strings | change)
    assert message in refused(tmp_path / "spoilt.safetensors")


WEIGHTS = {
    "missing": (lambda tensors: tensors.pop(BIAS), f'it lacks "{BIAS}"'),
    "more": (lambda tensors: tensors.update(more=torch.zeros(1)), 'the network has no "more"'),
    "another shape": (
        lambda tensors: tensors.update({BIAS: torch.zeros(2)}),
        f"size mismatch for {BIAS}: (2,) where the network has (1,)",
    ),
    "not finite": (lambda tensors: tensors[BIAS].fill_(float("nan")), f"not finite, in {BIAS}"),
    "none": (lambda tensors: tensors.clear(), "and 13 more"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_refused_by_name(parts, tmp_path, name):
    tensors, strings = parts
    spoil, message = WEIGHTS[name]
    spoil(tensors)
    save_file(tensors, tmp_path / "spoilt.safetensors", strings)
    assert message in refused(tmp_path / "spoilt.safetensors")


# Exporting on the command line.


def test_it_is_used_like_the_checkpoint_it_came_from(trained, exported, tmp_path):
    found = []
    for path in (trained, exported):
        run = tmp_path / f"of {path.name}"
        done = cli("sample", f"checkpoint={path}", *DATA, "num_samples=2", "steps=2", f"hydra.run.dir={run}")
        assert done.code == 0, done.err
        found.append((run / "samples.npz").read_bytes())
    assert found[0] == found[1]
    done = cli("compare", f"checkpoint={exported}", f"hydra.run.dir={tmp_path / 'unnamed'}")
    assert done.code == 2
    assert "does not say which data it was trained on: give data=NAME" in done.err


def test_export_says_where_the_file_is(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("export", str(trained), "output=a.safetensors")
    assert (done.code, done.out, done.err) == (0, "files: a.safetensors\n", "")
    (trained / "checkpoints" / "last.safetensors").unlink(missing_ok=True)
    done = cli("export", str(trained))
    assert done.out == f"files: {trained / 'checkpoints' / 'last.safetensors'}\n"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "output="], ["-x"]], ids=str)
def test_other_arguments_of_export_are_refused_with_the_usage(words):
    done = cli("export", *words)
    assert done.code == 2
    assert done.err == f"elslightning: error: usage: {TOOLS['export'].usage}\n"


def test_what_is_no_checkpoint_is_refused(tmp_path):
    done = cli("export", str(tmp_path))
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


# Files of earlier versions.


@pytest.mark.parametrize("name", ["resnet_format1.ckpt", "resnet_format1.safetensors"])
def test_files_of_format_1_load_and_predict_what_they_did(name):
    loaded, config = open_network(FIXTURES / name)
    assert config["denoiser"]["width"] == 16
    eps = loaded.eps(torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8), levels(0.5))
    expected = torch.tensor([-0.258226, -0.325487, -0.290347, -0.280117, -0.285120, -0.301639, -0.295593, -0.523345])
    torch.testing.assert_close(eps[0, 0, 3], expected, rtol=1e-4, atol=1e-5)
