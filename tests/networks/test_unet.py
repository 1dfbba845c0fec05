"""The UNet: that it is the paper's, what a pixel of the output depends on, which shifts it keeps."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import TRAIN, cli, compose_config
from torch import nn
from torch.testing import assert_close

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks.adapter import EpsDenoiser
from elslightning.networks.unet import SelfAttention, UNet
from elslightning.runs.checkpoints import open_network
from elslightning.runs.targets import build
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise

PADDINGS = ["zeros", "circular"]
TIMES = torch.tensor([0.2, 0.9], dtype=torch.float64)


def unet(**options):
    torch.manual_seed(0)
    return UNet(**({"channels": 1, "width": 4, "num_levels": 2, "embedding_dim": 16} | options)).double()


def attentive(**options):
    """A UNet whose attention has learned something."""
    network = unet(**options)
    for part in network.modules():
        if isinstance(part, SelfAttention):
            nn.init.normal_(part.projection.weight)
    return network


# The paper's formula.


def brute(network, x, t, labels=None, padding_mode="zeros"):
    """The UNet from its weights alone, as the paper describes it."""
    weights = network.state_dict()
    dim = weights["last_head.1.weight"].shape[1]
    half = dim // 2
    arguments = t[:, None] / 10_000 ** (torch.arange(half, dtype=t.dtype) / (half - 1))
    e = torch.cat([arguments.sin(), arguments.cos()], dim=1)
    if labels is not None:
        e = e + weights["embedding.classes.weight"][labels]

    def linear(name):
        return (torch.relu(e) @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])[:, :, None, None]

    def conv(name, h):
        h = F.pad(h, (1, 1, 1, 1), mode="circular" if padding_mode == "circular" else "constant")
        return F.conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(name, h):
        h = torch.relu(conv(f"{name}.layers.0", h + linear(f"{name}.head.1")))
        return torch.relu(conv(f"{name}.layers.2", h))

    def up(name, h):
        """Every pixel becomes 2×2 pixels, each by a matrix of its own."""
        kernel = weights[f"{name}.weight"]  # (input, output, 2, 2)
        batch, _, height, width = h.shape
        out = torch.einsum("bihw,iopq->bohpwq", h, kernel).reshape(batch, -1, 2 * height, 2 * width)
        return out + weights[f"{name}.bias"][:, None, None]

    def level(i, h):
        if i == len(network.down_blocks):
            return block("bottleneck", h)
        skip = block(f"down_blocks.{i}", h)
        rows, columns = skip.shape[2] // 2, skip.shape[3] // 2
        pooled = skip.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).amax(dim=(3, 5))
        mirrored = len(network.down_blocks) - 1 - i
        deeper = up(f"upsamples.{mirrored}", level(i + 1, pooled))
        return block(f"up_blocks.{mirrored}", torch.cat([skip, deeper], dim=1))

    return conv("output_conv", level(0, x) + linear("last_head.1"))


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_unet_is_the_papers_formula(num_levels, padding_mode):
    network = unet(num_levels=num_levels, channels=3, padding_mode=padding_mode)
    x_t = random_noise(2, 3, 8, 12)
    assert_close(network(x_t, TIMES), brute(network, x_t, TIMES, None, padding_mode), rtol=1e-11, atol=1e-12)


def test_conditional_unet_is_the_papers_formula():
    network, x_t = unet(conditional=True, num_classes=3), random_noise(2, 1, 6, 4)
    labels = torch.tensor([2, 0])
    assert_close(network(x_t, TIMES, labels), brute(network, x_t, TIMES, labels), rtol=1e-11, atol=1e-12)


def test_papers_unet_has_64_128_and_256_features():
    network = UNet(3)
    blocks = [*network.down_blocks, network.bottleneck, *network.up_blocks]
    assert [block.layers[0].out_channels for block in blocks] == [64, 128, 256, 128, 64]
    assert [block.layers[0].in_channels for block in blocks] == [3, 64, 128, 256, 128]
    assert (network.stride, network.receptive_field) == (4, 49)


def test_nothing_normalises():
    assert not [part for part in unet(attention=[0, 1]).modules() if "Norm" in type(part).__name__]


# What a pixel depends on.


def reach(network, side, position):
    """The rows of the input that the output's pixel (position, position) depends on."""
    x_t = random_noise(1, 1, side, side).requires_grad_()
    out = network(x_t, TIMES[:1])[0, 0, position, position]
    return torch.autograd.grad(out, x_t)[0][0, 0].abs().sum(dim=1).nonzero().flatten()


def linear(network):
    """The network with every path counting: no ReLU hides one, and pooling takes all pixels."""
    network.pool = nn.AvgPool2d(2)
    for block in (*network.down_blocks, network.bottleneck, *network.up_blocks):
        block.layers[1] = block.layers[3] = nn.Identity()
    return network


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize(("num_levels", "expected"), [(1, 7), (2, 21), (3, 49)])
def test_receptive_field_is_what_gradients_say_at_the_worst_position(num_levels, expected, padding_mode):
    network = linear(unet(width=2, num_levels=num_levels, padding_mode=padding_mode))
    stride = network.stride
    side = stride * math.ceil((network.receptive_field + stride) / stride)  # so that nothing wraps around
    middle = stride * (side // 2 // stride)
    farthest = 0
    for position in range(middle, middle + stride):
        rows = reach(network, side, position)
        if padding_mode == "circular":  # centred at the pixel
            rows = (rows - position + side // 2) % side + position - side // 2
        farthest = max(farthest, int((rows - position).abs().max()))
    assert 1 + 2 * farthest == network.receptive_field == expected


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("position", range(12, 16))
def test_no_pixel_beyond_the_receptive_field_matters(position, padding_mode):
    """With ReLU and max-pooling, by changing the input everywhere else at once."""
    network, side = unet(num_levels=2, padding_mode=padding_mode), 28
    x_t, other = random_noise(1, 1, side, side), random_noise(1, 1, side, side, seed=7)
    radius = network.receptive_field // 2
    window = torch.arange(position - radius, position + radius + 1) % side
    rows, columns = window[:, None], window[None, :]
    other[:, :, rows, columns] = x_t[:, :, rows, columns]
    before, after = network(x_t, TIMES[:1])[0, 0], network(other, TIMES[:1])[0, 0]
    assert_close(after[position, position], before[position, position], rtol=0, atol=1e-12)
    assert (after - before).abs().max() > 1e-6


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_corner_sees_across_the_border_exactly_when_circular(padding_mode):
    rows = reach(unet(padding_mode=padding_mode), 32, 0)
    assert (31 in rows.tolist()) == (padding_mode == "circular")
    assert rows[rows <= 16].max() <= 10


def test_denoiser_knows_the_receptive_field_of_its_backbone():
    assert EpsDenoiser(unet(), CosineSchedule()).receptive_field == 21
    assert EpsDenoiser(unet(attention=[1]), CosineSchedule()).receptive_field is None


# Shifts.


@pytest.mark.parametrize("attention", [(), (0, 2)], ids=["convolutions", "attention"])
@pytest.mark.parametrize("shifts", [(4, 0), (8, -4)])
def test_circular_padding_alone_commutes_with_shifts_by_the_stride(shifts, attention):
    x_t = random_noise(2, 1, 16, 12)
    for padding_mode in PADDINGS:
        network = attentive(num_levels=3, padding_mode=padding_mode, attention=attention)
        shifted = network(x_t.roll(shifts, dims=(2, 3)), TIMES)
        change = (shifted - network(x_t, TIMES).roll(shifts, dims=(2, 3))).abs().max()
        assert (change < 1e-12) == (padding_mode == "circular")
        assert (change < 1e-4) == (padding_mode == "circular")


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_other_shifts_do_not_commute(shift):
    network, x_t = unet(num_levels=3, padding_mode="circular"), random_noise(1, 1, 16, 16)
    shifted = network(x_t.roll(shift, dims=2), TIMES[:1])
    assert (shifted - network(x_t, TIMES[:1]).roll(shift, dims=2)).abs().max() > 1e-6


# Attention.


def test_attention_sees_the_whole_image():
    assert reach(attentive(num_levels=2, attention=[1]), 48, 20).tolist() == list(range(48))
    assert len(reach(unet(num_levels=2), 48, 20)) <= 21


def test_untrained_attention_changes_nothing():
    with_attention, without = unet(attention=[0, 1]), unet()
    missing = with_attention.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert {name.split(".attention.")[0] for name in missing} == {"down_blocks.0", "bottleneck", "up_blocks.0"}
    x_t = random_noise(2, 1, 4, 4)
    assert_close(with_attention(x_t, TIMES), without(x_t, TIMES), rtol=0, atol=1e-14)


def test_attention_is_a_softmax_over_positions():
    torch.manual_seed(0)
    attention, h = SelfAttention(3).double(), random_noise(1, 3, 2, 4)
    nn.init.normal_(attention.projection.weight)
    flat = h[0].flatten(1)  # (feature, position)
    kernel, bias = attention.queries_keys_values.weight[:, :, 0, 0], attention.queries_keys_values.bias
    q, k, v = (kernel @ flat + bias[:, None]).split(3)
    seen = v @ torch.softmax(q.T @ k / math.sqrt(3), dim=1).T
    expected = flat + attention.projection.weight[:, :, 0, 0] @ seen
    assert_close(attention(h)[0].flatten(1), expected, rtol=1e-11, atol=1e-12)


# Time, class and size.


@pytest.mark.parametrize("kind", ["paper", "mlp"])
def test_every_image_has_its_own_time(kind):
    network, x_t = unet(time_embedding=kind, attention=[1]), random_noise(2, 1, 4, 6)
    alone = torch.cat([network(x_t[i : i + 1], TIMES[i : i + 1]) for i in range(2)])
    assert_close(network(x_t, TIMES), alone, rtol=1e-12, atol=1e-12)
    assert (network(x_t, TIMES) - network(x_t, TIMES.flip(0))).abs().max() > 1e-5


def test_class_matters_when_conditional_and_is_ignored_otherwise():
    x_t, network = random_noise(2, 1, 4, 4), unet(conditional=True, num_classes=3)
    outputs = [network(x_t, TIMES, torch.tensor([label, label])) for label in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[a] - outputs[b]).abs().max() > 1e-5
    plain = unet(num_classes=3)
    assert plain.embedding.classes is None
    assert not plain.conditional


@pytest.mark.parametrize("sides", [(4, 4), (8, 12), (32, 4)])
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_any_multiple_of_the_stride_will_do(sides, padding_mode):
    network = unet(num_levels=3, channels=2, padding_mode=padding_mode)
    assert network(random_noise(1, 2, *sides), TIMES[:1]).shape == (1, 2, *sides)


@pytest.mark.parametrize("sides", [(30, 32), (32, 30), (7, 9), (2, 2)])
def test_other_sizes_are_refused_with_the_size_and_what_would_be_right(sides):
    with pytest.raises(InputError, match="3 levels .* multiples of 4, not {} x {}".format(*sides)):
        unet(num_levels=3)(random_noise(1, 1, *sides), TIMES[:1])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 0}, r"denoiser\.width must be a whole number, at least 1, not 0"),
        ({"num_levels": 0}, r"denoiser\.num_levels must be a whole number, at least 1, not 0"),
        ({"channels": 0}, "at least 1 image channel, not 0"),
        ({"padding_mode": "reflect"}, "one of zeros, circular, not 'reflect'"),
        ({"time_embedding": "fourier"}, "one of paper, mlp, not 'fourier'"),
        ({"embedding_dim": 5}, "even length of at least 4, not 5"),
        ({"conditional": True}, "needs a data set with labels"),
        ({"attention": [2]}, r"name levels from 0 to 1, not \[2\]"),
        ({"attention": [0, -1]}, r"name levels from 0 to 1, not \[0, -1\]"),
    ],
)
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        unet(**options)


def test_configuration_makes_the_papers_unet(tmp_path):
    cfg = compose_config("train", tmp_path, ["denoiser=unet"])
    usual = {name: tensor.shape for name, tensor in UNet(1).state_dict().items()}
    assert {name: tensor.shape for name, tensor in build(cfg.denoiser).state_dict().items()} == usual


def test_configuration_reaches_every_argument(tmp_path):
    overrides = ["width=4", "num_levels=2", "padding_mode=circular", "conditional=true", "time_embedding=mlp"]
    overrides = [f"denoiser.{override}" for override in (*overrides, "embedding_dim=16", "attention=[1]")]
    network = build(compose_config("train", tmp_path, ["denoiser=unet", *overrides]).denoiser)
    assert (network.stride, network.receptive_field, network.conditional) == (2, None, True)
    assert network.output_conv.padding_mode == "circular"
    assert network.embedding.classes.weight.shape == (10, 16)
    assert isinstance(network.embedding.time, nn.Sequential)
    assert network.output_conv.in_channels == 4


def test_sides_that_do_not_fit_are_refused_before_any_training(tmp_path):
    done = cli("train", "denoiser=unet", "denoiser.width=4", "denoiser.num_levels=5", f"hydra.run.dir={tmp_path}")
    assert done.code == 2
    assert done.err == (
        "elslightning: error: a UNet of 5 levels takes images whose sides are multiples of 16, not 8 x 8\n"
    )
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("no_drawing")
def test_a_unet_is_trained_compared_and_loaded(tmp_path):
    small = [override for override in TRAIN if "num_layers" not in override]
    options = [*small, "denoiser=unet", "denoiser.num_levels=2", "denoiser.attention=[1]", "machines=[ls]"]
    done = cli("train", *options, f"hydra.run.dir={tmp_path}")
    assert done.code == 0, done.err
    network, config = open_network(tmp_path)
    assert config["denoiser"]["attention"] == [1]
    assert network.backbone.bottleneck.attention.projection.weight.abs().max() > 0  # it has learned
    assert (tmp_path / "comparison.csv").is_file()


def test_float32_eps_is_that_of_float64():
    network, x_t = unet(), random_noise(2, 1, 8, 8)
    exact = EpsDenoiser(network, CosineSchedule()).eps(x_t, levels(0.3, 0.9))
    rounded = EpsDenoiser(network.float(), CosineSchedule()).eps(x_t.float(), levels(0.3, 0.9))
    assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-5)
