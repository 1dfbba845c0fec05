"""Exported weights: bit for bit those of the checkpoint, read as data, and refused in one line where foreign."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import cli, digits, network, snapshot, trainer

from elslightning.cli.tools import TOOLS
from elslightning.runs.checkpoints import open_network
from elslightning.runs.exchange import export
from elslightning.system.errors import InputError
from elslightning.testing import levels
from elslightning.training.task import DenoisingTask

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SECTIONS = {
    "denoiser": {"_target_": "elslightning.ResNet", "channels": 1, "width": 16, "num_layers": 1},
    "schedule": {"_target_": "elslightning.CosineSchedule", "stretch": 1.008},
}
BIAS = "backbone.down_projection.bias"
DATA = ["data=digits", "data.train_size=40", "data.val_size=10"]


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


def test_nothing_is_overwritten_and_nothing_else_left(trained, exported):
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


# On the command line.


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


def test_it_says_where_the_file_is(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("export", str(trained), "output=a.safetensors")
    assert (done.code, done.out, done.err) == (0, "files: a.safetensors\n", "")
    (trained / "checkpoints" / "last.safetensors").unlink(missing_ok=True)
    done = cli("export", str(trained))
    assert done.out == f"files: {trained / 'checkpoints' / 'last.safetensors'}\n"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "output="], ["-x"]], ids=str)
def test_other_arguments_are_refused_with_the_usage(words):
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
