"""The networks: what a pixel of the output depends on, and how padding, time and class enter."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from elslightning.diffusion.prediction import PREDICTIONS, convert, x0_from_eps
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.networks.adapter import EpsDenoiser, NetworkDenoiser
from elslightning.networks.embedding import TimeClassEmbedding, sinusoids
from elslightning.networks.resnet import ResNet
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise

PADDINGS = ["zeros", "circular"]
TIMES = torch.tensor([0.2, 0.9], dtype=torch.float64)


def resnet(**options):
    torch.manual_seed(0)
    return ResNet(**({"channels": 1, "width": 16, "num_layers": 1} | options)).double()


def reach(network, side, row, column):
    """Where the output at one pixel depends on the input: (side, side) bool."""
    x_t = random_noise(1, 1, side, side).requires_grad_()
    out = network(x_t, TIMES[:1])[0, 0, row, column]
    return torch.autograd.grad(out, x_t)[0][0, 0] != 0


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_receptive_field_is_what_gradients_say(num_layers, padding_mode):
    # Without ReLU every path through the convolutions counts.
    network = resnet(num_layers=num_layers, padding_mode=padding_mode)
    for sequence in network.convs:
        sequence[1] = nn.Identity()
    side = network.receptive_field + 2
    seen = reach(network, side, side // 2, side // 2)
    expected = torch.zeros(side, side, dtype=torch.bool)
    expected[1:-1, 1:-1] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_no_pixel_beyond_the_receptive_field_matters(padding_mode):
    """With ReLU, by changing the input everywhere else at once."""
    network = resnet(num_layers=2, padding_mode=padding_mode)
    x_t, other = random_noise(1, 1, 13, 13), random_noise(1, 1, 13, 13, seed=7)
    radius = network.receptive_field // 2
    other[:, :, 6 - radius : 7 + radius, 6 - radius : 7 + radius] = x_t[
        :, :, 6 - radius : 7 + radius, 6 - radius : 7 + radius
    ]
    before, after = network(x_t, TIMES[:1])[0, 0], network(other, TIMES[:1])[0, 0]
    assert_close(after[6, 6], before[6, 6], rtol=0, atol=1e-12)
    assert (after[6, 5] - before[6, 5]).abs() > 1e-6


def test_corner_sees_across_the_border_exactly_when_circular():
    assert reach(resnet(padding_mode="circular"), 9, 0, 0)[-1, -1]
    assert not reach(resnet(padding_mode="zeros"), 9, 0, 0)[-3:].any()


def test_papers_resnet_sees_17_pixels():
    assert ResNet(3).receptive_field == EpsDenoiser(ResNet(3), CosineSchedule()).receptive_field == 17


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("shifts", [(1, 0), (3, 5)])
def test_circular_padding_alone_commutes_with_circular_shifts(padding_mode, shifts):
    network, x_t = resnet(padding_mode=padding_mode), random_noise(2, 1, 8, 7)
    shifted = network(x_t.roll(shifts, dims=(2, 3)), TIMES)
    change = (shifted - network(x_t, TIMES).roll(shifts, dims=(2, 3))).abs().max()
    assert (change < 1e-12) == (padding_mode == "circular")
    assert (change < 1e-4) == (padding_mode == "circular")


def test_resnet_is_the_papers_formula():
    """h = conv(x); h += ReLU(conv(h + e_l)) per layer; out = conv(h + e_last)."""
    network, x_t = resnet(num_layers=2, channels=3), random_noise(2, 3, 6, 6)
    e = [
        torch.relu(nn.functional.group_norm(head[0](sinusoids(TIMES, 16)), 8, head[1].weight, head[1].bias))
        for head in network.heads
    ]
    h = network.up_projection(x_t)
    for i in range(2):
        h = h + torch.relu(network.convs[i][0](h + e[i][:, :, None, None]))
    out = network.down_projection(h + e[2][:, :, None, None])
    assert len(e) == 3
    assert_close(network(x_t, TIMES), out, rtol=1e-12, atol=1e-12)


def test_nothing_normalises_over_pixels():
    """Doubling one far pixel must not rescale the others: every normalisation is inside an embedding head."""
    normalisations = {name for name, part in resnet(num_layers=3).named_modules() if "Norm" in type(part).__name__}
    assert normalisations == {f"heads.{i}.1" for i in range(4)}


@pytest.mark.parametrize("kind", ["paper", "mlp"])
def test_time_matters(kind):
    network, x_t = resnet(width=32, time_embedding=kind), random_noise(1, 1, 6, 6)
    assert (network(x_t, TIMES[:1]) - network(x_t, TIMES[1:])).abs().max() > 1e-4


def test_time_matters_with_the_smallest_width():
    network, x_t = resnet(width=16), random_noise(1, 1, 6, 6)
    assert (network(x_t, TIMES[:1]) - network(x_t, TIMES[1:])).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["paper", "mlp"])
def test_every_image_has_its_own_time(kind):
    network, x_t = resnet(time_embedding=kind), random_noise(2, 1, 6, 6)
    alone = torch.cat([network(x_t[i : i + 1], TIMES[i : i + 1]) for i in range(2)])
    assert_close(network(x_t, TIMES), alone, rtol=1e-12, atol=1e-12)


def test_class_matters_when_conditional_and_is_ignored_otherwise():
    x_t = random_noise(2, 1, 6, 6)
    conditional = resnet(width=32, conditional=True, num_classes=3)
    outputs = [conditional(x_t, TIMES, torch.tensor([label, label])) for label in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[a] - outputs[b]).abs().max() > 1e-4
    plain = resnet(num_classes=3)
    assert plain.embedding.classes is None
    assert not plain.conditional


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes_is_refused(label):
    network = resnet(conditional=True, num_classes=3)
    with pytest.raises(InputError, match=rf"labels must lie in 0 … 2, not .*{label}"):
        network(random_noise(2, 1, 6, 6), TIMES, torch.tensor([1, label]))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 12}, "multiple of 8, .*not 12"),
        ({"width": 0}, "multiple of 8, .*not 0"),
        ({"width": -8}, "multiple of 8, .*not -8"),
        ({"width": 8}, "at least 16, not 8"),  # groups of one number would be normalised to 0
        ({"num_layers": -1}, "at least 0, not -1"),
        ({"channels": 0}, "at least 1 image channel, not 0"),
        ({"padding_mode": "reflect"}, "one of zeros, circular, not 'reflect'"),
        ({"time_embedding": "fourier"}, "one of paper, mlp, not 'fourier'"),
        ({"conditional": True}, "needs a data set with labels"),
        ({"conditional": True, "num_classes": 0}, "at least 1 class, not 0"),
    ],
)
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        resnet(**options)


# Embeddings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 10, 256])
def test_sinusoids_are_the_papers_formula(dim):
    t, half = 0.37, dim // 2
    arguments = [t / 10_000 ** (k / (half - 1)) for k in range(half)]
    expected = [math.sin(x) for x in arguments] + [math.cos(x) for x in arguments]
    assert_close(sinusoids(levels(t), dim), torch.tensor([expected], dtype=torch.float64), rtol=1e-12, atol=0)


def test_paper_embedding_is_the_sinusoids_of_the_time_itself():
    assert torch.equal(TimeClassEmbedding(16, None)(TIMES, None), sinusoids(TIMES, 16))


def test_mlp_embedding_is_two_layers_on_the_sinusoids_of_a_thousand_times_the_time():
    embedding = TimeClassEmbedding(16, None, "mlp").double()
    first, _, last = embedding.time
    expected = last(nn.functional.silu(first(sinusoids(1000 * TIMES, 16))))
    assert_close(embedding(TIMES, None), expected, rtol=1e-12, atol=1e-12)


def test_class_embedding_is_added():
    embedding, labels = TimeClassEmbedding(16, 3).double(), torch.tensor([2, 0])
    expected = sinusoids(TIMES, 16) + embedding.classes.weight[labels]
    assert_close(embedding(TIMES, labels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 5, 0])
def test_embedding_needs_an_even_length_of_at_least_four(dim):
    with pytest.raises(InputError, match=f"at least 4, not {dim}"):
        TimeClassEmbedding(dim, None)


# EpsDenoiser ----------------------------------------------------------------------------------------------


class Backbone(nn.Module):
    """Predicts its own input, and keeps the times it was asked for."""

    channels, conditional = 2, False

    def forward(self, x_t, t, labels):
        self.t = t
        return x_t


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backbone_gets_the_schedules_time_in_the_precision_of_the_images(dtype):
    schedule, backbone = CosineSchedule(1.02), Backbone()
    x_t, alpha_bar = random_noise(3, 2, 4, 4).to(dtype), schedule.alpha_bar(levels(0.1, 0.5, 1.0))
    denoiser = EpsDenoiser(backbone, schedule)
    eps = denoiser.eps(x_t, alpha_bar)
    assert torch.equal(eps, x_t)
    assert backbone.t.dtype == dtype
    assert_close(backbone.t.double(), levels(0.1, 0.5, 1.0), rtol=1e-6, atol=1e-9)
    assert_close(denoiser(x_t, alpha_bar), x0_from_eps(x_t, eps, alpha_bar), rtol=0, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_backbones_prediction_is_what_the_denoiser_makes_of_it(prediction):
    backbone = Backbone()
    backbone.prediction = prediction
    denoiser, x_t, alpha_bar = NetworkDenoiser(backbone, CosineSchedule()), random_noise(2, 2, 4, 4), levels(0.3, 0.9)
    assert denoiser.prediction == prediction
    assert torch.equal(denoiser.predict(x_t, alpha_bar), x_t)
    for wanted, found in (("x0", denoiser(x_t, alpha_bar)), ("eps", denoiser.eps(x_t, alpha_bar))):
        assert_close(found, convert(x_t, x_t, alpha_bar, prediction, wanted), rtol=0, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_beyond_its_schedule_a_network_is_asked_at_its_last_time(prediction):
    schedule = CosineSchedule()
    denoiser = NetworkDenoiser(resnet(prediction=prediction), schedule)
    x_t, least = random_noise(2, 1, 4, 4), schedule.alpha_bar(levels(1.0, 1.0))
    beyond = levels(1e-9, 1e-5)
    assert_close(denoiser(x_t, beyond), denoiser(x_t, least), rtol=1e-6, atol=1e-6)
    assert_close(denoiser.eps(x_t, beyond), convert(x_t, denoiser(x_t, beyond), beyond, "x0", "eps"))


def test_an_eps_denoiser_takes_no_other_prediction():
    with pytest.raises(InputError, match=r"EpsDenoiser takes a network that predicts eps, not v: NetworkDenoiser"):
        EpsDenoiser(resnet(prediction="v"), CosineSchedule())
    backbone = Backbone()
    backbone.prediction = "noise"
    with pytest.raises(InputError, match="prediction must be one of eps, v, x0, not 'noise'"):
        NetworkDenoiser(backbone, CosineSchedule())


def test_denoiser_leaves_the_size_of_images_free():
    denoiser = EpsDenoiser(resnet(), CosineSchedule())
    assert denoiser.image_shape == (1, None, None)
    assert denoiser(random_noise(1, 1, 3, 11), levels(0.5)).shape == (1, 1, 3, 11)


def test_weights_survive_saving_and_loading():
    network, other = resnet(), resnet()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    x_t = random_noise(2, 1, 6, 6)
    assert not torch.allclose(network(x_t, TIMES), other(x_t, TIMES))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x_t, TIMES), other(x_t, TIMES))
