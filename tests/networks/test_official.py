"""Networks of the paper's code: what comes out of a file of its format, and that no file runs anything."""

import os
import pickle
import random
import sys
import warnings
import zipfile
from collections import OrderedDict

import papers
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks.official import load_official, read_official
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet
from elslightning.runs.checkpoints import build_network
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise

TIMES = torch.tensor([0.05, 0.4, 1.0])
BACKBONES = {
    "resnet": lambda **options: papers.MinimalResNet(**options),
    "resnet, one layer": lambda **options: papers.MinimalResNet(num_layers=1, emb_dim=24, **options),
    "unet": lambda **options: papers.MinimalUNet(**options),
    "unet, two levels": lambda **options: papers.MinimalUNet(fsizes=(6, 12), **options),
    "unet, one level": lambda **options: papers.MinimalUNet(fsizes=(6,), **options),
}


def ddim_of(name="resnet", **options):
    torch.manual_seed(0)
    return papers.DDIM(BACKBONES[name](**options))


# What comes out.


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", BACKBONES)
def test_imported_network_predicts_what_the_papers_predicts(tmp_path, name, conditional, mode):
    theirs = ddim_of(name, channels=2, conditional=conditional, mode=mode, num_classes=4)
    ours = load_official(papers.save(theirs, tmp_path / "official.pt"))
    labels = torch.tensor([3, 0, 1]) if conditional else None
    x_t = random_noise(3, 2, 8, 12).float()
    expected = theirs(TIMES, x_t, labels)
    assert_close(ours.eps(x_t, CosineSchedule().alpha_bar(TIMES), labels), expected, rtol=1e-5, atol=1e-5)
    assert (ours.conditional, ours.image_shape, ours.training) == (conditional, (2, None, None), False)
    assert ours.schedule == CosineSchedule(1.008)
    with torch.no_grad():
        noise, x = random_noise(3, 2, 8, 12, seed=9).float(), random_noise(3, 2, 8, 12, seed=9).float()
        for i in range(20, 0, -1):
            beta, then = (papers.cosine_noise_schedule(torch.tensor(j / 20)) for j in (i, i - 1))
            eps = theirs(torch.full((3,), i / 20), x, labels)
            x = (1 - then).sqrt() * (x - beta.sqrt() * eps) / (1 - beta).sqrt() + then.sqrt() * eps
        samples = ddim(ours, noise, ours.schedule, 20, labels).samples
    assert_close(samples, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_network_can_be_trained_further_and_saved(tmp_path):
    ours = load_official(papers.save(ddim_of(), tmp_path / "official.pt"))
    assert all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in ours.parameters())
    assert all(p.is_contiguous() for p in ours.parameters())
    ours.eps(random_noise(1, 1, 6, 6).float(), levels(0.5)).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_configuration_makes_the_same_network(tmp_path, name):
    theirs = ddim_of(name, conditional=True, mode="circular", num_classes=4)
    ours, config = read_official(papers.save(theirs, tmp_path / "official.pt"))
    again = build_network(config)
    assert type(again.backbone) is type(ours.backbone) is (ResNet if "resnet" in name else UNet)
    assert again.receptive_field == ours.receptive_field
    again.load_state_dict(ours.state_dict())
    x_t, labels = random_noise(1, 1, 8, 8).float(), torch.tensor([2])
    assert torch.equal(again.eps(x_t, levels(0.5), labels), ours.eps(x_t, levels(0.5), labels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_become_float32(tmp_path, dtype):
    ours = load_official(papers.save(ddim_of().to(dtype), tmp_path / "official.pt"))
    expected = ddim_of().to(dtype).float().backbone.up_projection.weight
    assert torch.equal(ours.backbone.up_projection.weight, expected)


def test_weights_may_lie_in_their_storage_as_they_like(tmp_path):
    theirs, x_t = ddim_of(), random_noise(3, 1, 8, 8).float()
    expected = theirs(TIMES, x_t)
    theirs = theirs.to(memory_format=torch.channels_last)
    bias = torch.cat([torch.ones(5), theirs.backbone.up_projection.bias.detach()])
    theirs.backbone.up_projection.bias = nn.Parameter(bias[5:])
    ours = load_official(papers.save(theirs, tmp_path / "official.pt"))
    assert_close(ours.eps(x_t, CosineSchedule().alpha_bar(TIMES)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocol_does_not_matter(tmp_path, protocol):
    load_official(papers.save(ddim_of("unet"), tmp_path / "official.pt", pickle_protocol=protocol))


def test_nothing_is_imported(tmp_path):
    path = papers.save(ddim_of(), tmp_path / "official.pt")
    before = set(sys.modules)
    load_official(path)
    assert set(sys.modules) == before
    assert "models" not in before


# What is refused.


def refused(path, *parts):
    """The line that a file is refused with, which names the file and contains the parts."""
    with pytest.raises(InputError) as caught:
        load_official(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert all(part in message for part in parts), message
    return message


class Payload:
    """Calls a function where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PLACES = {
    "whole": lambda network, payload: payload,
    "backbone": lambda network, payload: network._modules.update(backbone=payload),
    "attribute": lambda network, payload: setattr(network, "note", payload),
    "parameter": lambda network, payload: network.backbone.up_projection._parameters.update(bias=payload),
    "hook": lambda network, payload: network.backbone._forward_hooks.update({0: payload}),
    "padding mode": lambda network, payload: setattr(network.backbone.up_projection, "padding_mode", payload),
    "beside": lambda network, payload: [network, payload],
}


@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_file_is_refused_by_name_and_does_not_run(tmp_path, place):
    canary = tmp_path / "canary"
    for payload, name in (
        (Payload(os.system, f"touch {canary}"), f"{os.system.__module__}.system"),
        (Payload(eval, f"open({str(canary)!r}, 'w')"), "__builtin__.eval"),
        (Payload(pickle.loads, pickle.dumps(1)), "pickle.loads"),
        (nn.SiLU(), "torch.nn.modules.activation.SiLU"),
        (random.Random, "random.Random"),
    ):
        network = ddim_of()
        saved = PLACES[place](network, payload) or network
        path = papers.save(saved, tmp_path / "evil.pt")
        refused(path, f"{name}, which such a file has no use for")
        assert not canary.exists()


def test_the_canary_would_be_created(tmp_path):
    path = papers.save(Payload(os.system, f"touch {tmp_path / 'canary'}"), tmp_path / "evil.pt")
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()


FOREIGN = {
    "a tensor": (lambda: torch.zeros(3), "holds something else, not models.DDIM"),
    "weights alone": (lambda: ddim_of().state_dict(), "holds something else, not models.DDIM"),
    "a backbone alone": (lambda: papers.MinimalResNet(), "holds models.MinimalResNet, not models.DDIM"),
    "a list": (lambda: [1, 2], "holds something else, not models.DDIM"),
    "another backbone": (
        lambda: papers.DDIM(papers.EmbeddingModule(8, False, 0, 1)),
        "backbone is models.EmbeddingModule",
    ),
    "another schedule": (lambda: changed("", noise_schedule=None), "its noise_schedule is not utils.noise_schedules."),
    "another network": (lambda: nn.Linear(2, 2), "holds torch.nn.modules.linear.Linear, not models.DDIM"),
    "normalisation": (lambda: changed("backbone", normalization="layer"), "its normalization is not None"),
    "last normalisation": (lambda: changed("backbone", "unet", last_norm=True), "its last_norm is not False"),
    "features": (lambda: papers.DDIM(papers.MinimalUNet(fsizes=(4, 8, 8))), "[4, 8, 8] features, which do not double"),
    "width": (lambda: papers.DDIM(papers.MinimalResNet(emb_dim=8)), "denoiser.width must be"),
    "stride": (lambda: changed("backbone.convs.1.0", stride=(2, 2)), "the stride of convs.1.0 is not (1, 1)"),
    "padding": (lambda: changed("backbone.convs.1.0", padding="valid"), "the padding of convs.1.0 is not 1"),
    "one padding mode": (lambda: changed("backbone.convs.1.0", padding_mode="circular"), "padding_mode of convs.1.0"),
    "padding mode": (lambda: changed("backbone.down_projection", padding_mode="reflect"), "not 'reflect'"),
    "no padding mode": (lambda: changed("backbone.down_projection", padding_mode=None), "has no padding_mode"),
    "groups": (lambda: changed("backbone.embs.0.1", num_groups=4), "the num_groups of embs.0.1 is not 8"),
    "eps": (lambda: changed("backbone.embs.0.1", eps=1e-3), "the eps of embs.0.1 is not 1e-05"),
    "pooling": (lambda: changed("backbone.pool", "unet", ceil_mode=True), "the ceil_mode of pool is not False"),
    "kernel": (
        lambda: replaced("backbone.convs.0.0", nn.Conv2d(16, 16, 5, padding="same")),
        "kernel_size of convs.0.0",
    ),
    "a layer too few": (lambda: replaced("backbone.embs", nn.ModuleList()), "embs.0 is nothing where "),
    "no activation": (
        lambda: replaced("backbone.convs.0", nn.Sequential(nn.Conv2d(16, 16, 3))),
        "convs.0.1 is nothing",
    ),
    "another class": (lambda: replaced("backbone.convs.0.1", nn.Linear(2, 2)), "convs.0.1 is torch.nn.modules.linear"),
    "a part too much": (lambda: replaced("backbone.more", nn.ReLU()), "more is torch.nn.modules.activation.ReLU where"),
    "a part of the DDIM too much": (lambda: replaced("more", nn.ReLU()), "other parts than a backbone"),
    "no bias": (lambda: replaced("backbone.convs.0.0", nn.Conv2d(16, 16, 3, padding=1, bias=False)), "bias is missing"),
    "shape": (lambda: replaced("backbone.embs.0.0", nn.Linear(16, 24)), "embs.0.0.weight is not a tensor of shape"),
    "no matrix": (lambda: weighted("backbone.up_projection", "weight", torch.ones(3)), "up_projection has no matrix"),
    "a weight too much": (
        lambda: weighted("backbone.convs.0.1", "weight", torch.ones(3)),
        "convs.0.1.weight is too much",
    ),
    "not a number": (lambda: weighted("backbone.convs.0.0", "bias", torch.full((16,), torch.nan)), "not finite"),
    "whole numbers": (lambda: weighted("backbone.convs.0.0", "bias", torch.arange(16)), "names torch.LongStorage"),
}


def changed(module, name="resnet", **attributes):
    network = ddim_of(name)
    vars(network.get_submodule(module)).update(attributes)
    return network


def replaced(place, module):
    network = ddim_of()
    parent, _, name = place.rpartition(".")
    network.get_submodule(parent)._modules[name] = module
    return network


def weighted(module, name, value):
    network = ddim_of()
    network.get_submodule(module)._parameters[name] = nn.Parameter(value, requires_grad=False)
    return network


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_network_of_the_papers_is_refused_with_the_reason(tmp_path, name):
    make, part = FOREIGN[name]
    refused(papers.save(make(), tmp_path / "foreign.pt"), "is not a network of the paper's code", part)


def test_a_module_that_stands_in_two_places_is_refused(tmp_path):
    network = ddim_of()
    network.backbone.convs._modules["1"] = network.backbone.convs[0]
    refused(papers.save(network, tmp_path / "twice.pt"), "is not a module of its own")


def test_a_module_within_itself_is_refused(tmp_path):
    network = ddim_of()
    network.backbone.convs._modules["0"] = network.backbone
    refused(papers.save(network, tmp_path / "endless.pt"), "holds a value that is within itself")


def test_shared_weights_are_no_way_to_more_memory_than_the_file(tmp_path):
    network = papers.DDIM(papers.MinimalResNet(emb_dim=16, num_layers=60))
    for part in (network.backbone.convs, network.backbone.embs):
        for sequence in part[1:]:
            for name, value in part[0][0]._parameters.items():
                sequence[0]._parameters[name] = value
    assert sum(p.numel() for p in network.state_dict().values()) > papers.save(network, tmp_path / "a").stat().st_size
    refused(tmp_path / "a", "more than fit into the file")


# A tensor in a storage of 16 numbers: offset, size, stride.
CRAFTED = {
    "more than the storage": (0, (17,), (1,)),
    "offset beyond the end": (16, (16,), (1,)),
    "offset before the start": (-1, (16,), (1,)),
    "negative stride": (0, (16,), (-1,)),
    "negative size": (0, (-16,), (1,)),
    "negative sizes": (0, (-4, -4), (4, 1)),
    "stride beyond the end": (0, (2, 8), (16, 1)),
    "endless stride": (0, (16,), (2**80,)),
    "endless size": (0, (2**80,), (1,)),
    "endless size without strides": (0, (2**40, 2**40), (0, 0)),
    "more than there is, on one place": (0, (17,), (0,)),
    "empty": (0, (0,), (1,)),
    "empty, and endless": (0, (0, 2**80), (1, 1)),
    "strides missing": (0, (4, 4), (4,)),
    "many dimensions": (0, (1,) * 1000, (1,) * 1000),
    "size of a number": (0, 16, (1,)),
    "size of a text": (0, "16", "16"),
    "offset of a text": ("0", (16,), (1,)),
    "broken numbers": (0, (16.0,), (1,)),
}


def with_bias(value):
    network = ddim_of()
    network.backbone.convs[0][0]._parameters["bias"] = value
    return network


@pytest.mark.parametrize("name", CRAFTED)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, name):
    offset, size, stride = CRAFTED[name]
    storage = torch.zeros(16)._typed_storage()
    crafted = Payload(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    refused(papers.save(with_bias(crafted), tmp_path / "crafted.pt"))


def test_a_tensor_within_its_storage_is_taken(tmp_path):
    storage = torch.arange(40.0)._typed_storage()
    crafted = Payload(torch._utils._rebuild_tensor_v2, storage, 8, (16,), (2,), False, OrderedDict())
    ours = load_official(papers.save(with_bias(crafted), tmp_path / "crafted.pt"))
    assert ours.backbone.convs[0][0].bias.tolist() == list(range(8, 40, 2))


STRANGE = {
    "tensor of no storage": Payload(torch._utils._rebuild_tensor_v2, 1, 0, (16,), (1,), False, OrderedDict()),
    "tensor with too few arguments": Payload(torch._utils._rebuild_tensor_v2, 1),
    "tensor of an older kind": Payload(torch._utils._rebuild_tensor, 1, 0, (16,), (1,)),
    "parameter of a text": Payload(torch._utils._rebuild_parameter, "weights", True, OrderedDict()),
    "set of a number": Payload(set, 7),
    "text": "weights",
    "storage": torch.zeros(16)._typed_storage(),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_tensor_is_refused(tmp_path, name):
    refused(papers.save(with_bias(STRANGE[name]), tmp_path / "strange.pt"))


def rewritten(path, change):
    """The file with each entry `name` holding `change(name, content)`, and checksums that fit."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            new = change(entry.split("/", 1)[1], content)
            if new is not None:
                archive.writestr(entry, new)
    return path


def test_a_storage_of_another_length_is_refused(tmp_path):
    for length, part in ((4, "length"), (3, ""), (10**6, "length")):
        path = papers.save(ddim_of(), tmp_path / "official.pt")
        rewritten(path, lambda name, content, length=length: bytes(length) if name == "data/0" else content)
        refused(path, part)


def test_a_missing_storage_is_refused(tmp_path):
    path = papers.save(ddim_of(), tmp_path / "official.pt")
    refused(rewritten(path, lambda name, content: None if name == "data/3" else content), "is damaged")


def test_storages_cannot_lie_elsewhere_in_the_archive(tmp_path):
    path = papers.save(ddim_of(), tmp_path / "official.pt")
    key = b"X\x01\x00\x00\x000"
    foreign = b"X\x0b\x00\x00\x00../data.pkl"
    refused(rewritten(path, lambda name, content: content.replace(key, foreign) if name == "data.pkl" else content))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_format_before_zip_archives_is_refused_by_its_name(tmp_path):
    path = papers.save(ddim_of(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(path, "in the format of torch before 1.6")


def test_other_files_are_refused(tmp_path):
    with papers.importable():
        (tmp_path / "bare.pkl").write_bytes(pickle.dumps(ddim_of()))
    refused(tmp_path / "bare.pkl", "is not a file of torch.save")
    (tmp_path / "text.pt").write_text("not a network")
    refused(tmp_path / "text.pt", "is not a file of torch.save")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "is not a file of torch.save")
    refused(tmp_path / "missing.pt", "cannot read", "No such file")
    refused(tmp_path, "cannot read", "Is a directory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    refused(tmp_path / "script.pt", "is not a network of the paper's code")


def test_truncation_anywhere_is_refused(tmp_path):
    content = papers.save(ddim_of("unet"), tmp_path / "official.pt").read_bytes()
    generator, path = random.Random(0), tmp_path / "cut.pt"
    for end in [*range(64), *generator.sample(range(len(content)), 200), *range(len(content) - 64, len(content))]:
        path.write_bytes(content[:end])
        refused(path)


def test_damage_anywhere_is_refused_or_harmless(tmp_path):
    content = papers.save(ddim_of(), tmp_path / "official.pt").read_bytes()
    generator, path, refusals = random.Random(0), tmp_path / "damaged.pt", []
    for _ in range(50):
        spoilt = bytearray(content)
        spoilt[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(spoilt)
        try:
            load_official(path)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 25
    assert all("\n" not in message and str(path) in message for message in refusals)


def test_damage_to_the_pickle_is_refused_or_harmless(tmp_path):
    content = papers.save(ddim_of("resnet, one layer"), tmp_path / "official.pt").read_bytes()
    generator, path, refusals = random.Random(1), tmp_path / "damaged.pt", []

    def spoil(name, data):
        spoilt = bytearray(data)
        if name == "data.pkl":
            for position in generator.sample(range(len(data)), generator.choice([1, 1, 3])):
                spoilt[position] = generator.choice([generator.randrange(256), *b"(.)]}abcehqrstuKMQRX\x81\x85\x8a"])
        return bytes(spoilt)

    for _ in range(40):
        path.write_bytes(content)
        try:
            load_official(rewritten(path, spoil))
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 15
    assert all("\n" not in message and str(path) in message for message in refusals)
