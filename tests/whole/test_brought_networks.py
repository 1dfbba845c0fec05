"""Networks that people bring, from the command line: of diffusers, a module or a class of one's own."""

import json
import shutil
import sys
import textwrap
from pathlib import Path

import diffusers
import numpy as np
import papers
import pytest
import torch
from safetensors.torch import save_file
from tiny import MEASUREMENT, TRAIN, cli, undrawn

from elslightning.runs.checkpoints import load_network, open_network
from elslightning.runs.experiment import open_run, rebuild
from elslightning.runs.targets import trusting
from elslightning.system.errors import InputError

DATA = ["data=digits", "data.train_size=40", "data.val_size=10"]
SMALL = [word for word in TRAIN if not word.startswith("denoiser.")]
UNET = [
    *("denoiser=diffusers", "schedule=linear", "denoiser.prediction=v", "denoiser.block_out_channels=[8,8]"),
    *("denoiser.norm_num_groups=4", "denoiser.attention_head_dim=4"),
]
MODULE = """
    import os
    import torch
    from torch import nn

    class Tiny(nn.Module):
        conditional = False

        def __init__(self, channels, width=4):
            super().__init__()
            self.channels = channels
            self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 1))

        def forward(self, x, t, labels=None):
            return self.layers(x) * (1 + t)[:, None, None, None]

    def build(channels=1):
        return Tiny(channels)
"""


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        yield


@pytest.fixture
def mynet(tmp_path, monkeypatch):
    """A module `mynet` that can be imported."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mynet.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield
    sys.modules.pop("mynet", None)


def done(*words: str) -> None:
    result = cli(*words)
    assert result.code == 0, result.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A UNet of diffusers, trained here."""
    run = tmp_path_factory.mktemp("trained") / "run"
    done("train", *SMALL, *UNET, "machines=[is]", f"hydra.run.dir={run}")
    return run


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    """The same, as diffusers saves it: the route of docs/networks.md."""
    folder = tmp_path_factory.mktemp("saved")
    network = load_network(trained)
    network.backbone.unet.save_pretrained(folder / "unet")
    diffusers.DDPMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.usefixtures("no_rendering")
def test_what_diffusers_saves_is_compared_as_the_run_that_trained_it(trained, folder, tmp_path):
    words = [*MEASUREMENT, "machines=[bbels,is]"]
    done("compare", f"checkpoint={trained}", *words, f"hydra.run.dir={tmp_path / 'ours'}")
    words += [*DATA, "report=true"]
    done("compare", "network=diffusers", f"network.path={folder}", *words, f"hydra.run.dir={tmp_path / 'theirs'}")
    runs = tmp_path / "ours", tmp_path / "theirs"
    for name in ("comparison.csv", "scales.json", "calibration.csv", "receptive_field.csv", "samples.npz"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name
    # Its gradients go another way from v to eps, so that their last digits differ, and with them their checksum.
    other = {"files": None, "checksum": None}
    ours, theirs = (json.loads((run / "summary.json").read_text()) | other for run in runs)
    # Only the run knows the losses of its training, and doubts them.
    (of_losses,) = [doubt for doubt in ours["doubts"] if doubt not in theirs["doubts"]]
    assert of_losses.startswith("Whether the network has converged")
    ours["doubts"].remove(of_losses)
    assert ours == theirs
    ours, theirs = (np.load(run / "receptive_field.npz") for run in runs)
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-5)
    page = (tmp_path / "theirs" / "report.md").read_text()
    assert "the whole image" in page
    assert str(folder) in page
    run = open_run(tmp_path / "theirs")
    assert run.setting("schedule._target_") == "elslightning.LinearSchedule"
    assert rebuild(run).network is not None


def test_every_door_takes_the_folder(folder, tmp_path):
    """As a checkpoint, as another network among the machines, to calibrate and to sample."""
    words = [*DATA, *MEASUREMENT, f"checkpoint={folder}"]
    peer = ["machines=[is,checkpoint]", f"machines.checkpoint.path={folder}"]
    done("compare", *words, *peer, f"hydra.run.dir={tmp_path / 'compare'}")
    summary = json.loads((tmp_path / "compare" / "summary.json").read_text())
    assert summary["machines"]["checkpoint"]["2"]["pearson_r"]["median"] == pytest.approx(1)
    done("calibrate", *words, "machines=[ls]", f"hydra.run.dir={tmp_path / 'calibrate'}")
    sampling = [*DATA, "network=diffusers", f"network.path={folder}", "num_samples=2", "steps=2"]
    done("sample", *sampling, f"hydra.run.dir={tmp_path / 'sample'}")


def test_a_network_of_diffusers_goes_on_training_and_is_exported(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    done("train", f"resume={run}", "trainer.max_epochs=2")
    done("export", str(run), f"output={tmp_path / 'net.safetensors'}")
    x_t, alpha_bar = torch.randn(1, 1, 8, 8), torch.tensor([0.5], dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(*(load_network(path)(x_t, alpha_bar) for path in (run, tmp_path / "net.safetensors")))


@pytest.mark.usefixtures("mynet", "no_rendering")
def test_a_module_of_ones_own_is_compared_if_it_is_trusted(tmp_path):
    import mynet

    torch.manual_seed(1)
    save_file(mynet.build().state_dict(), tmp_path / "weights.safetensors")
    words = [
        *("compare", *DATA, *MEASUREMENT, "machines=[is]", "network=module", "network.module=mynet:build"),
        *("network.prediction=v", "network.schedule=cosine", f"network.weights={tmp_path / 'weights.safetensors'}"),
    ]
    refused = cli(*words, f"hydra.run.dir={tmp_path / 'run'}")
    assert refused.code == 2
    assert "if you know that code and trust it, add trust=[mynet]" in refused.err
    done(*words, "trust=[mynet]", "report=true", f"hydra.run.dir={tmp_path / 'run'}")
    assert (tmp_path / "run" / "summary.json").is_file()
    assert "mynet:build" in (tmp_path / "run" / "report.md").read_text()
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"add trust=\[mynet\]"):
        rebuild(run)
    with trusting(["mynet"]):
        assert rebuild(run).network is not None


@pytest.mark.usefixtures("mynet", "no_rendering")
def test_a_class_of_ones_own_goes_all_the_way_with_trust_and_is_asked_for_it_again(tmp_path):
    run, output = tmp_path / "run", tmp_path / "net.safetensors"
    own = [
        *("~denoiser", "+denoiser._target_=mynet.Tiny", "+denoiser.channels=1", "+denoiser.width=4"),
        *("machines=[is]", f"hydra.run.dir={run}"),
    ]
    refused = cli("train", *SMALL, *own)
    assert refused.code == 2
    assert "names mynet.Tiny, which is not a class of elslightning's; if you know that code" in refused.err
    assert "add trust=[mynet]" in refused.err
    assert not (run / "checkpoints").exists()
    done("train", *SMALL, *own, "trust=[mynet]")
    assert open_run(run).config.trust == ["mynet"]
    ways = {
        "compare": ["compare", f"checkpoint={run}", *MEASUREMENT],
        "calibrate": ["calibrate", f"checkpoint={run}", *MEASUREMENT, "machines=[ls]"],
        "sample": ["sample", f"checkpoint={run}", "num_samples=2", "steps=2"],
        "resume": ["train", f"resume={run}", "trainer.max_epochs=2"],
        "export": ["export", str(run), f"output={output}"],
    }
    for name, words in ways.items():
        words = words if name in ("resume", "export") else [*words, f"hydra.run.dir={tmp_path / name}"]
        refused = cli(*words)
        assert refused.code == 2, name
        assert "add trust=[mynet]" in refused.err, name
        done(*words, "trust=[mynet]")
    for path in (run, output):
        with pytest.raises(InputError, match=r"add trust=\[mynet\]"):
            load_network(path)
        assert type(load_network(path, trust=["mynet"]).backbone).__name__ == "Tiny"
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["elslightning"]["config"]["trust"] == ["mynet"]
    # A report shows what it can without the network, and says what it left out.
    for words, refused in ((), True), (("trust=[mynet]",), False):
        done("report", str(run), *words)
        assert ("which is not a class of elslightning's" in (run / "report.md").read_text()) == refused


@pytest.mark.reliability
@pytest.mark.usefixtures("mynet")
@pytest.mark.parametrize("target", ["mynet.os.system", "mynet.torch.load", "os.system", "mynetwork.Tiny", "mynet"])
def test_trust_is_in_what_a_module_defines_itself(target, tmp_path):
    from elslightning.runs.targets import own

    with trusting(["mynet"]), pytest.raises(InputError, match="names"):
        own({"_target_": target}, "the file")


@pytest.mark.parametrize("trust", ["[os]", "[torch]", "[elslightning]", "mynet", "['my net']", "[hydra.utils]"])
def test_what_nobody_can_mean_to_trust_is_refused(trust, tmp_path):
    refused = cli("train", *TRAIN, f"trust={trust}", f"hydra.run.dir={tmp_path}")
    assert refused.code == 2
    assert "error: trust" in refused.err


REFUSED = {
    "two networks": (["checkpoint=.", "network=diffusers", "network.path=."], "both name a network"),
    "no folder": (["network=diffusers"], "network=diffusers needs network.path=FOLDER, not None"),
    "another folder": (["network=diffusers", "network.path=/nowhere"], "network.path=/nowhere is not a folder"),
    "no module": (["network=module", "network.prediction=edm"], "network.module must be MODULE:NAME"),
    "no schedule": (["network=module", "network.module=a:b", "network.prediction=v"], "network.schedule must name"),
    "lucidrains without one": (["network=lucidrains", "network.module=a:b"], "network.schedule must name"),
    "unknown key": (["network=azula", "+network.nonsense=1"], "there is no key network.nonsense"),
}


@pytest.mark.parametrize(("words", "error"), REFUSED.values(), ids=REFUSED)
def test_words_that_name_no_network_are_refused_before_anything_is_loaded(words, error, tmp_path):
    refused = cli("compare", *DATA, *words, f"hydra.run.dir={tmp_path}")
    assert refused.code == 2
    assert error in refused.err


def test_a_folder_does_not_say_its_data(folder, tmp_path):
    refused = cli("compare", f"checkpoint={folder}", *MEASUREMENT, f"hydra.run.dir={tmp_path}")
    assert refused.code == 2
    assert "does not say which data it was trained on: give data=NAME" in refused.err


def test_a_file_of_the_papers_code_opens_by_the_same_door(tmp_path):
    network = papers.DDIM(papers.MinimalResNet(num_layers=1))
    path = papers.save(network, tmp_path / "official.pt")
    found, config = open_network(path)
    assert config["denoiser"]["_target_"] == "elslightning.ResNet"
    assert isinstance(load_network(path), type(found))
    done("sample", *DATA, f"checkpoint={path}", "num_samples=2", "steps=2", f"hydra.run.dir={tmp_path / 'run'}")
