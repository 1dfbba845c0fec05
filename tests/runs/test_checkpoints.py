"""Checkpoints: what comes back, and that no file, whoever wrote it, does more than fail in one line."""

import copy
import io
import os
import pickle
import random
import shutil
import struct
import time
import tracemalloc
import zipfile

import pytest
import torch
from omegaconf import OmegaConf
from tiny import CONFIG, cli, digits, network, trainer

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.runs.checkpoints import Checkpoint, build_network, open_network, read_checkpoint
from elslightning.runs.finding import find_checkpoint
from elslightning.runs.targets import build
from elslightning.system.errors import InputError
from elslightning.testing import DEVICES
from elslightning.training.task import DenoisingTask

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]

BIAS = "denoiser.backbone.down_projection.bias"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a checkpoint, and the network that it holds."""
    directory = tmp_path_factory.mktemp("run")
    task = DenoisingTask(network(), config=CONFIG)
    fitter = trainer(directory)
    fitter.fit(task, digits())
    fitter.save_checkpoint(directory / "checkpoints" / "last.ckpt")
    return directory, task.denoiser.eval()


@pytest.fixture
def content(trained):
    """The content of that checkpoint, to spoil."""
    return torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def refused(tmp_path, unchecked):
    """Saves a content and asserts that it is refused, in one line that names the file; returns the line."""

    def check(content) -> str:
        path = tmp_path / "spoilt.ckpt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(InputError) as caught:
            open_network(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        return message

    return check


def test_a_loaded_network_predicts_what_the_trained_one_did(trained):
    directory, denoiser = trained
    loaded, config = open_network(directory)
    x_t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha_bar = torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)
    torch.testing.assert_close(loaded.eps(x_t, alpha_bar), denoiser.eps(x_t, alpha_bar), rtol=0, atol=0)
    assert config == CONFIG
    assert not loaded.training


def test_the_schedule_comes_with_the_network(content, tmp_path):
    content["elslightning"]["config"]["schedule"]["stretch"] = 1.02
    torch.save(content, tmp_path / "other.ckpt")
    loaded, _ = open_network(tmp_path / "other.ckpt")
    assert loaded.schedule == CosineSchedule(1.02)


def test_a_file_and_its_run_directory_are_the_same(trained):
    directory, _ = trained
    path = directory / "checkpoints" / "last.ckpt"
    assert find_checkpoint(path) == find_checkpoint(str(directory)) == path


@pytest.mark.parametrize("name", ["", "nothing", "nothing/last.ckpt"])
def test_a_missing_checkpoint_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"checkpoint={tmp_path / name}: there is no file"):
        open_network(tmp_path / name)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(trained, refused, share):
    whole = (trained[0] / "checkpoints" / "last.ckpt").read_bytes()
    assert "cannot be read as a checkpoint" in refused(whole[: int(share * len(whole))])


@pytest.mark.parametrize("start", [b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"], ids=repr)
def test_random_bytes_are_refused(refused, start):
    generator = random.Random(0)
    for _ in range(200):
        refused(start + generator.randbytes(generator.randrange(100)))


def test_a_damaged_pickle_inside_an_archive_is_refused_or_harmless(trained, tmp_path):
    generator, path = random.Random(0), tmp_path / "damaged.ckpt"
    with zipfile.ZipFile(trained[0] / "checkpoints" / "last.ckpt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    errors = []
    for _ in range(60):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in files.items():
                spoilt = bytearray(data)
                if name.endswith("data.pkl"):
                    for position in generator.sample(range(len(spoilt)), 5):
                        spoilt[position] = generator.randrange(256)
                archive.writestr(name, bytes(spoilt))
        path.write_bytes(buffer.getvalue())
        try:
            open_network(path)
        except InputError as error:
            errors.append(str(error))
    assert len(errors) > 30
    assert all("\n" not in error for error in errors)


# Damaged and hostile archives.


def test_no_flipped_bit_in_the_tensors_goes_unnoticed(trained, refused):
    path = trained[0] / "checkpoints" / "last.ckpt"
    whole, generator = path.read_bytes(), random.Random(0)
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    for _ in range(60):
        entry = generator.choice(entries)
        spoilt, lengths = bytearray(whole), struct.unpack_from("<HH", whole, entry.header_offset + 26)
        spoilt[entry.header_offset + 30 + sum(lengths) + generator.randrange(entry.file_size)] ^= (
            1 << generator.randrange(8)
        )
        assert "does not have its checksum" in refused(bytes(spoilt))


def nested(count: int) -> bytes:
    """A tuple in a tuple, so many times, as instructions of a pickle."""
    return b")" + b"\x85" * count


def shared(count: int) -> bytes:
    """A list of the list before twice, so many times."""
    lists = (b"]q" + bytes([n]) + b"(h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"e" for n in range(1, count))
    return b"(]q\x00" + b"".join(lists) + b"t"


def with_pickle(path, edit, compression=zipfile.ZIP_STORED, **more) -> bytes:
    """A checkpoint with another pickle, and further entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w", compression) as changed:
        for name in archive.namelist():
            data = archive.read(name)
            changed.writestr(name, edit(data) if name.endswith("/data.pkl") else data)
        folder = archive.namelist()[0].partition("/")[0]
        for name, data in more.items():
            changed.writestr(f"{folder}/{name}", data)
    return buffer.getvalue()


# Checking the signature of every one of so many steps takes twenty times as long as they do.
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-1] + nested(400_000) + b"Ns.", "more than 200000 steps"),
        (lambda data: b"\x80\x02" + nested(400_000) + b".", ""),
        (lambda data: data[:-1] + b"X\x04\x00\x00\x00more" + nested(5 * 2**20) + b"s.", "at most 4194304 are read"),
    ],
    ids=["key", "whole", "long"],
)
def test_a_checkpoint_that_is_nested_without_end_is_refused(trained, refused, edit, message):
    assert message in refused(with_pickle(trained[0] / "checkpoints" / "last.ckpt", edit))


def test_a_list_that_stands_for_very_many_is_refused(content, refused):
    several: list[object] = []
    for _ in range(40):
        several = [several, several]
    content["elslightning"]["config"]["seed"] = several
    start = time.monotonic()
    refused(content)
    assert time.monotonic() - start < 10


def test_what_is_compressed_is_refused_before_it_is_inflated(trained, refused):
    path = trained[0] / "checkpoints" / "last.ckpt"
    packed = with_pickle(path, lambda data: data, zipfile.ZIP_DEFLATED, more=bytes(2**28))
    assert len(packed) < 2**20
    tracemalloc.start()
    assert "compressed" in refused(packed)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_an_entry_twice_is_refused(trained, refused):
    path = trained[0] / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data/0"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = with_pickle(path, lambda data: data, **{name.partition("/")[2]: bytes(4)})
    assert "entries of the same name" in refused(twice)


@pytest.mark.parametrize("width", [1 << 16, 1 << 20])
def test_tensors_that_are_longer_than_their_storage_are_refused(content, refused, width):
    """A network of such weights would take 70 GB and more, of a file of a few kilobytes."""
    content["elslightning"]["config"]["denoiser"]["width"] = width
    weights = content["state_dict"]
    with torch.device("meta"):
        wanted = build_network(content["elslightning"]["config"]).state_dict()
    for name, value in wanted.items():
        weights[f"denoiser.{name}"] = torch.zeros(1).expand(value.shape)
    assert "a tensor does not fit into its storage" in refused(content)


def test_many_tensors_in_one_storage_are_refused(content, refused):
    one = torch.zeros(100_000)
    content["state_dict"] |= {f"denoiser.more.{number}": one.view(-1) for number in range(10)}
    assert "many times as long as the file" in refused(content)


def test_a_refusal_gives_no_advice_to_execute_the_file(content, refused, tmp_path):
    content["elslightning"]["config"]["seed"] = Payload("true")
    message = refused(content)
    assert "posix.system" in message
    assert "weights_only" not in message
    assert "trust" not in message


def test_what_torch_says_is_not_passed_on(trained, monkeypatch):
    def load(*arguments, **options):
        raise pickle.UnpicklingError("Weights only load failed. Re-running with `weights_only` set to `False` ...")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(InputError) as caught:
        read_checkpoint(trained[0])
    assert "UnpicklingError" in str(caught.value)
    assert "weights_only" not in str(caught.value)


FOREIGN = {
    "a tensor": torch.zeros(3),
    "a list": [1, 2],
    "a dictionary": {"state_dict": {"weight": torch.zeros(3)}},
    "another framework": {"elslightning": 1, "state_dict": {}},
    "no weights": {"elslightning": {"format": 1, "config": CONFIG}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_torch_file_of_something_else_is_refused(refused, name):
    assert "is not a checkpoint of elslightning" in refused(FOREIGN[name])


@pytest.mark.parametrize("number", [2, 0, None, "1"], ids=repr)
def test_another_format_is_refused(content, refused, number):
    content["elslightning"]["format"] = number
    assert f"has checkpoint format {number}; this version reads 1" in refused(content)


@pytest.mark.parametrize("key", ["denoiser", "schedule"])
def test_a_checkpoint_that_does_not_say_what_it_holds_is_refused(content, refused, key):
    del content["elslightning"]["config"][key]
    assert "does not say which network it holds" in refused(content)


@pytest.mark.parametrize("config", [None, 5, "denoiser", ["denoiser", "schedule"], {}], ids=repr)
def test_a_configuration_of_another_kind_is_refused(content, refused, config):
    content["elslightning"]["config"] = config
    refused(content)


@pytest.mark.parametrize("section", [None, 3, "ResNet", [], {}], ids=repr)
def test_a_section_of_another_kind_is_refused(content, refused, section):
    content["elslightning"]["config"]["denoiser"] = section
    refused(content)


@pytest.mark.parametrize("weights", [None, 5, [torch.zeros(1)], {}, {1: torch.zeros(1)}], ids=repr)
def test_weights_of_another_kind_are_refused(content, refused, weights):
    content["state_dict"] = weights
    refused(content)


SPOILT = {
    "missing": (lambda weights: weights.pop(BIAS), "down_projection.bias"),
    "extra": (lambda weights: weights.update({"denoiser.more": torch.zeros(1)}), '"more"'),
    "of another shape": (lambda weights: weights.update({BIAS: torch.zeros(2)}), "size mismatch"),
    "no tensor": (lambda weights: weights.update({BIAS: 1.0}), "down_projection.bias"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_weights_that_do_not_fit_are_refused_by_name(content, refused, name):
    spoil, mentioned = SPOILT[name]
    spoil(content["state_dict"])
    message = refused(content)
    assert "does not fit its own configuration" in message
    assert mentioned in message


def test_weights_of_another_width_are_refused(content, refused):
    content["elslightning"]["config"]["denoiser"]["width"] = 32
    assert "size mismatch" in refused(content)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change", [{"width": 7}, {"width": "wide"}, {"depth": 3}, {"channels": 0}, {"_partial_": True}], ids=str
)
def test_arguments_that_the_network_does_not_take_are_refused(content, tmp_path, change):
    content["elslightning"]["config"]["denoiser"].update(change)
    torch.save(content, tmp_path / "spoilt.ckpt")
    with pytest.raises(InputError) as caught:
        open_network(tmp_path / "spoilt.ckpt")
    assert "\n" not in str(caught.value)


class Payload:
    """Runs a shell command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("archive", [True, False], ids=["torch file", "bare pickle"])
@pytest.mark.parametrize("place", ["whole", "config", "weight"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(content, refused, tmp_path, archive, place):
    witness = tmp_path / "witness"
    payload = Payload(f"touch {witness}")
    if place == "whole":
        content = payload
    elif place == "config":
        content["elslightning"]["config"]["seed"] = payload
    else:
        content["state_dict"][BIAS] = payload
    refused(content if archive else pickle.dumps(content))
    assert not witness.exists()
    os.system(payload.command)
    assert witness.exists()


# A function that leaves a file behind, named outright and through a module that ours import.
WITNESSES = ["torch.save", "elslightning.diffusion.schedule.torch.save", "elslightning.system.files.write_text"]


def foreign_section(target: str, path) -> dict[str, object]:
    """A section that would write `path`."""
    if target.endswith("write_text"):
        return {"_target_": target, "path": str(path), "text": "called"}
    return {"_target_": target, "obj": "called", "f": str(path)}


@pytest.mark.parametrize("target", WITNESSES)
def test_the_witnesses_do_write(tmp_path, target):
    build(foreign_section(target, tmp_path / "witness"))
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize("target", WITNESSES)
@pytest.mark.parametrize("section", ["denoiser", "schedule"])
def test_a_target_that_is_no_network_or_schedule_is_refused_and_not_called(content, refused, tmp_path, section, target):
    content["elslightning"]["config"][section] = foreign_section(target, tmp_path / "witness")
    message = refused(content)
    assert target in message
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("section", ["denoiser", "schedule"])
def test_a_target_below_an_argument_is_refused_and_not_called(content, refused, tmp_path, section):
    content["elslightning"]["config"][section]["extra"] = foreign_section(WITNESSES[0], tmp_path / "witness")
    refused(content)
    assert not (tmp_path / "witness").exists()


def test_no_checkpoint_has_data_fetched(content, tmp_path, monkeypatch):
    """What a file says is no errand: data are fetched only for the command line that asks for it."""
    fetched = []
    monkeypatch.setattr("elslightning.data.module.download", lambda dataset, root: fetched.append(root))
    data = {"dataset": "mnist", "root": str(tmp_path / "nowhere"), "download": True, "num_classes": 10}
    content["elslightning"]["config"]["data"] = {"_target_": "elslightning.ImageDataModule", **data}
    torch.save(content, tmp_path / "asking.ckpt")
    words = [f"checkpoint={tmp_path / 'asking.ckpt'}", f"hydra.run.dir={tmp_path / 'run'}", "report=false"]
    done = cli("compare", *words)
    assert (done.code, fetched) == (2, [])
    assert "data.download=true fetches it" in done.err
    assert not (tmp_path / "nowhere").exists()
    cli("compare", *words, "+data.download=true")
    assert fetched == [tmp_path / "nowhere"]


@pytest.mark.parametrize("section", ["data", "machines", "calibration", "comparison"])
def test_the_other_sections_of_a_checkpoint_call_no_foreign_target_either(content, tmp_path, section):
    foreign = foreign_section(WITNESSES[0], tmp_path / "witness")
    content["elslightning"]["config"][section] = {"is": foreign} if section == "machines" else foreign
    torch.save(content, tmp_path / "foreign.ckpt")
    done = cli("compare", f"checkpoint={tmp_path / 'foreign.ckpt'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "witness").exists()
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "torch.save" in done.err


def test_the_unchanged_checkpoint_passes_the_same_command(trained, tmp_path):
    done = cli("compare", f"checkpoint={trained[0]}", "report=false", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "summary.json").is_file()


def test_reading_changes_nothing(trained, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(trained[0], copied)
    before = (copied / "checkpoints" / "last.ckpt").read_bytes()
    read_checkpoint(copied)
    assert (copied / "checkpoints" / "last.ckpt").read_bytes() == before


def test_loading_leaves_the_global_generator_alone(trained):
    state = torch.get_rng_state()
    open_network(trained[0])
    assert torch.equal(torch.get_rng_state(), state)


# A checkpoint among the machines.


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_makes_its_network_ready_for_use_beside_the_images(trained, device):
    directory, denoiser = trained
    images = torch.zeros(2, 1, 8, 8, device=device)
    made = Checkpoint(str(directory))(images, None)
    assert made.learned
    assert not made.training
    assert {(value.device, value.dtype) for value in made.parameters()} == {(images.device, torch.float32)}
    alpha_bar = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x_t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(x_t.to(device), alpha_bar).cpu(), denoiser(x_t, alpha_bar), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [None, 5, ["a"]], ids=repr)
@pytest.mark.usefixtures("unchecked")
def test_a_checkpoint_without_a_path_is_refused(path):
    with pytest.raises(InputError, match=r"needs machines\.checkpoint\.path=PATH"):
        Checkpoint(path)(torch.zeros(1, 1, 8, 8))


def test_a_missing_checkpoint_among_the_machines_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: there is no file"):
        Checkpoint(tmp_path)(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("among", [True, False], ids=["checkpoint among its machines", "machines alone"])
def test_a_run_with_a_checkpoint_among_its_machines_can_be_compared_again(trained, content, tmp_path, among):
    other = {"_target_": "elslightning.Checkpoint", "path": str(trained[0])}
    content["elslightning"]["config"]["machines"] |= {"checkpoint": other} if among else {}
    torch.save(content, tmp_path / "run.ckpt")
    done = cli("compare", f"checkpoint={tmp_path / 'run.ckpt'}", "report=false", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert ("of ceiling" in done.out) == among


@pytest.mark.parametrize("name", ["open_network", "read_checkpoint", "build", "instantiate", "torch.load"])
def test_only_the_class_of_that_module_may_be_named_by_a_checkpoint(content, tmp_path, name):
    content["elslightning"]["config"]["machines"] = {"is": {"_target_": f"elslightning.{name}"}}
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="is not a class of elslightning's"):
        read_checkpoint(tmp_path / "foreign.ckpt")


def test_build_network_leaves_its_configuration_alone():
    config = copy.deepcopy(CONFIG)
    assert build_network(config).backbone.receptive_field == 7
    assert config == CONFIG


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "elslightning.ResNet", "channels": 1, "width": 7}, "width must be a multiple of 8"),
        ({"_target_": "elslightning.ResNet"}, "channels"),
        ({"_target_": "elslightning.Transformer"}, "elslightning.Transformer"),
        ({"_target_": "nowhere.Nothing"}, "nowhere.Nothing"),
    ],
    ids=["bad value", "missing argument", "unknown class", "unknown module"],
)
def test_build_says_in_one_line_what_cannot_be_built(config, message):
    with pytest.raises(InputError, match=message) as caught:
        build(OmegaConf.create(config))
    assert "\n" not in str(caught.value)


def test_build_hands_over_plain_lists_and_dictionaries():
    built = build(OmegaConf.create({"_target_": "builtins.dict", "sizes": [3, 5], "nested": {"a": 1}}))
    assert type(built["sizes"]) is list
    assert type(built["nested"]) is dict
