"""Networks of diffusers: what their schedulers say, folders of theirs, and what a hostile folder gets."""

import json
import pickle
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from elslightning.diffusion import prediction as p
from elslightning.diffusion.schedule import add_noise
from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.diffusers_folder import load_diffusers
from elslightning.networks.diffusers_names import WEIGHTS, is_diffusers
from elslightning.networks.diffusers_schedules import said
from elslightning.networks.diffusers_unet import DiffusersDenoiser, DiffusersUNet
from elslightning.runs.checkpoints import load_network
from elslightning.runs.targets import build, own, section_of
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

pytestmark = pytest.mark.reliability
TINY = {
    "sample_size": 4,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
DISCRETE = {
    "linear": {},
    "v": {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    "scaled": {"prediction_type": "sample", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "given": {"trained_betas": [0.01, 0.02, 0.05], "num_train_timesteps": 3},
    "shorter": {"num_train_timesteps": 50, "beta_end": 0.2},
    "zero at the end": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}


def unet(**options):
    torch.manual_seed(0)
    model = UNet2DModel(**(TINY | options))
    with torch.no_grad():  # what is made of nothing returns nearly nothing
        model.conv_out.weight.mul_(10)
    return model.eval()


def save(folder: Path, scheduler, **options) -> Path:
    """A folder of a pipeline, as diffusers lays it out."""
    unet(**options).save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", type(scheduler).__name__]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **parts}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "saved", diffusers.DDPMScheduler())


@pytest.mark.parametrize("settings", DISCRETE.values(), ids=DISCRETE)
def test_levels_are_those_of_the_library(settings):
    scheduler = diffusers.DDPMScheduler(**settings)
    schedule = said({**scheduler.config, "_class_name": "DDPMScheduler"}).schedule
    assert isinstance(schedule, DiscreteSchedule)
    found, expected = schedule.levels_alpha_bar, scheduler.alphas_cumprod.double()
    assert len(expected) - len(found) == settings.get("rescale_betas_zero_snr", False)
    # The library computes in float32: of 1 - alpha_bar it knows 1e-7, of a product of a thousand 1e-4 of itself.
    assert_close(found, expected[: len(found)], rtol=5e-3 if "zero" in str(settings) else 2e-4, atol=1e-9)


@pytest.mark.parametrize("settings", DISCRETE.values(), ids=DISCRETE)
def test_a_schedule_is_built_again_from_its_section(settings):
    schedule = said({**settings, "_class_name": "DDPMScheduler"}).schedule
    section = json.loads(json.dumps(section_of(schedule)))
    assert build(own(section, "file")) == schedule


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_posterior_mean_is_that_of_the_librarys_own_step(kind, tmp_path):
    """`step` also computes the posterior mean, before it clips: at a level, for each prediction."""
    scheduler = diffusers.DDIMScheduler(prediction_type=kind, clip_sample=False)
    denoiser = load_diffusers(save(tmp_path, scheduler))
    scheduler.set_timesteps(1000)
    for level in (5, 400, 800):
        alpha_bar = LinearSchedule().levels_alpha_bar[[level]]
        x_t = add_noise(random_images(1, 1, 4, 4), random_noise(1, 1, 4, 4), alpha_bar).float()
        with torch.no_grad():
            output = unet()(x_t, level).sample
            expected = scheduler.step(output, level, x_t).pred_original_sample
            assert_close(denoiser(x_t, alpha_bar), expected, rtol=1e-3, atol=1e-4)


def test_edm_is_preconditioned_as_the_library_does_it(tmp_path):
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.7)
    denoiser = load_diffusers(save(tmp_path, scheduler))
    alpha_bar = levels(0.02, 0.7)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt().float()
    x_t = random_noise(2, 1, 4, 4).float()
    for image, level, power in zip(x_t.split(1), sigma, alpha_bar, strict=True):
        y = image / power.sqrt().float()
        with torch.no_grad():
            output = unet()(scheduler.precondition_inputs(y, level), scheduler.precondition_noise(level)).sample
            expected = scheduler.precondition_outputs(y, output, level)
            assert_close(denoiser(image, power[None]), expected, rtol=1e-4, atol=1e-5)


def test_a_flow_is_asked_at_1000_q(tmp_path):
    """`scale_noise` gives z = (1 - q) x0 + q eps, and the network is told the scheduler's own time there."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    denoiser = load_diffusers(save(tmp_path, scheduler))
    x0, eps = random_images(1, 1, 4, 4).float(), random_noise(1, 1, 4, 4).float()
    for position in (100, 500, 900):
        time, q = scheduler.timesteps[[position]], scheduler.sigmas[position].double()
        z = scheduler.scale_noise(x0, time, eps)
        alpha_bar = ((1 - q) ** 2 / ((1 - q) ** 2 + q**2))[None]
        with torch.no_grad():
            expected = z - q.float() * unet()(z, time).sample
            found = denoiser(add_noise(x0, eps, alpha_bar), alpha_bar)
            assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_of_a_learned_variance_the_mean_is_taken(tmp_path):
    denoiser = load_diffusers(save(tmp_path, diffusers.DDPMScheduler(variance_type="learned"), out_channels=2))
    alpha_bar = LinearSchedule().levels_alpha_bar[[300]]
    x_t = random_noise(1, 1, 4, 4).float()
    with torch.no_grad():
        mean = unet(out_channels=2)(x_t, 300).sample[:, :1]
        assert_close(denoiser(x_t, alpha_bar), p.x0_from_eps(x_t, mean, alpha_bar), rtol=1e-4, atol=1e-4)


def test_labels_are_handed_on_and_looked_at(tmp_path):
    denoiser = load_network(save(tmp_path, diffusers.DDPMScheduler(), num_class_embeds=3))
    assert denoiser.conditional
    x_t, alpha_bar = random_noise(1, 1, 4, 4).float().expand(2, 1, 4, 4), levels(0.5, 0.5)
    with torch.no_grad():
        one, other = denoiser(x_t, alpha_bar, torch.tensor([0, 2]))
    assert not torch.equal(one, other)
    with pytest.raises(InputError, match="labels must lie in 0 … 2"):
        denoiser(x_t, alpha_bar, torch.tensor([0, 3]))


def test_the_door_opens_a_folder_and_a_model_alone(folder):
    network = load_network(folder)
    assert isinstance(network, DiffusersDenoiser)
    assert network.receptive_field is None
    assert network.image_shape == (1, 4, 4)
    assert network.schedule == LinearSchedule()
    assert not network.training
    x_t, alpha_bar = random_noise(1, 1, 4, 4).float(), levels(0.5)
    with torch.no_grad():
        assert torch.equal(load_network(folder / "unet")(x_t, alpha_bar), network(x_t, alpha_bar))
        scheduler = diffusers.DDPMScheduler()
        assert_close(DiffusersDenoiser(unet(), scheduler)(x_t, alpha_bar), network(x_t, alpha_bar))


def test_weights_of_earlier_versions_have_other_names(folder):
    path = folder / "unet" / WEIGHTS
    earlier = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    before, renamed = load_file(path), {}
    for name, tensor in before.items():
        for today, then in earlier.items():
            name = name.replace(today, then)
        renamed[name] = tensor
    assert renamed.keys() != before.keys()
    save_file(renamed, path)
    found = load_diffusers(folder).module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in before.items())


def test_one_that_is_trained_here_counts_as_the_library_does():
    """With the schedule of a scheduler of diffusers, backbone and adapter are the same network."""
    torch.manual_seed(0)
    options = {"size": 4, "block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4}
    backbone = DiffusersUNet(1, **options, prediction="v").eval()
    ours = NetworkDenoiser(backbone, LinearSchedule())
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    theirs = DiffusersDenoiser(backbone.unet, scheduler)
    alpha_bar = LinearSchedule().noise_levels(20)
    x_t = random_noise(20, 1, 4, 4).float()
    with torch.no_grad():
        assert torch.equal(ours(x_t, alpha_bar), theirs(x_t, alpha_bar))


def test_sides_that_a_unet_cannot_halve_are_refused():
    backbone = DiffusersUNet(1, block_out_channels=(8, 8), norm_num_groups=4)
    with pytest.raises(InputError, match="must be multiples of 2 for a UNet of 2 blocks, not 3 x 4"):
        backbone.check_sides(3, 4)
    with pytest.raises(InputError, match=r"diffusers makes no UNet2DModel of it: .*Nonsense"):
        DiffusersUNet(1, down_block_types=("Nonsense", "DownBlock2D"))


# Hostile folders.


class Trap:
    """Whoever unpickles this runs it."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def edit(path: Path, **keys) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def pickled(folder: Path, name: str) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / name).write_bytes(pickle.dumps(Trap(folder / "ran")))


def without_a_weight(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    content = load_file(path)
    del content["conv_in.bias"]
    save_file(content, path)


def with_a_number_that_is_none(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    content = load_file(path)
    content["conv_in.bias"][0] = torch.nan
    save_file(content, path)


UNET, SCHEDULER = Path("unet/config.json"), Path("scheduler/scheduler_config.json")
HOSTILE = {
    "weights are a pickle": (
        lambda folder: pickled(folder, "diffusion_pytorch_model.bin"),
        "has no diffusion_pytorch_model.safetensors; diffusion_pytorch_model.bin is a pickle",
    ),
    "a pickle of another name": (lambda folder: pickled(folder, WEIGHTS), "cannot be read as safetensors"),
    "auto_map": (
        lambda folder: edit(folder / UNET, auto_map={"UNet": "x.y"}),
        "has the key auto_map, by which",
    ),
    "_target_": (
        lambda folder: edit(folder / SCHEDULER, a=[{"_target_": "os.system"}]),
        "has the key _target_",
    ),
    "a class of its own": (lambda folder: edit(folder / UNET, _class_name="Mine"), "is of class 'Mine': a UNet2DModel"),
    "a pipeline of its own": (
        lambda folder: edit(folder / "model_index.json", unet=["mine", "UNet2DModel"]),
        r"names \['mine', 'UNet2DModel'\] as its unet",
    ),
    "an unknown scheduler": (
        lambda folder: edit(folder / SCHEDULER, _class_name="ScoreSdeVeScheduler"),
        "is of class 'ScoreSdeVeScheduler', which is none of",
    ),
    "an unknown prediction": (lambda folder: edit(folder / SCHEDULER, prediction_type="x"), "prediction_type is 'x'"),
    "a schedule without an end": (lambda folder: edit(folder / SCHEDULER, num_train_timesteps=10**9), "at most 100000"),
    "endless layers": (
        lambda folder: edit(folder / UNET, layers_per_block=10**9),
        "layers_per_block must be at most",
    ),
    "more weights than the file has": (
        lambda folder: edit(folder / UNET, block_out_channels=[800_000, 800_000]),
        "does not fit its configuration",
    ),
    "an unknown key": (lambda folder: edit(folder / UNET, made_up=1), "a UNet2DModel has no made_up"),
    "another time": (lambda folder: edit(folder / UNET, time_embedding_type="fourier"), "time_embedding_type is 'four"),
    "a weight too few": (without_a_weight, "conv_in.bias is missing"),
    "not a number": (with_a_number_that_is_none, "has numbers that are not finite, in conv_in.bias"),
    "no scheduler": (lambda folder: (folder / SCHEDULER).unlink(), "has no scheduler/scheduler_config.json"),
    "no JSON": (lambda folder: (folder / UNET).write_text("{"), "is not a JSON file"),
    "no configuration": (lambda folder: (folder / UNET).write_text("[]"), "is no configuration of diffusers"),
    "nested deeply": (
        lambda folder: (folder / SCHEDULER).write_text('{"a":' * 900 + "1" + "}" * 900),
        "nested too deeply|not a JSON file",
    ),
}


@pytest.mark.parametrize(("damage", "error"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_folder_is_refused_in_a_line_and_runs_nothing(folder, damage, error):
    damage(folder)
    assert is_diffusers(folder)
    with pytest.raises(InputError, match=error) as raised:
        load_network(folder)
    assert len(raised.value.problems) == 1
    assert not (folder / "ran").exists()


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_diffusers(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"neither unet/config\.json nor config\.json"):
        load_diffusers(tmp_path)
    assert not is_diffusers(tmp_path)
