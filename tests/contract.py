"""The contract of every denoiser, and the lists of them: a new machine or network costs one line here."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.machines import (
    BoundaryBrokenScoreMachine,
    EquivariantLocalScoreMachine,
    EquivariantScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    ScoreMachine,
)
from elslightning.machines.scales import ScaleTable
from elslightning.networks import NetworkDenoiser, ResNet, UNet
from elslightning.system.errors import InputError

# Even sides, which a UNet can halve.
CHANNELS, HEIGHT, WIDTH, CLASSES = 2, 6, 8, 3
TABLE = ScaleTable([0.95, 0.5, 0.05], [1, 3, 5])
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def without_scales(machine: Callable[..., ScoreMachine]) -> Callable[..., ScoreMachine]:
    """A machine that has no patches, made like those that have."""
    return lambda images, labels=None, scales=None, **options: machine(images, labels, **options)


def resnet(images: Tensor, labels: Tensor | None, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    conditional = labels is not None
    backbone = ResNet(images.shape[1], width=32, num_layers=1, conditional=conditional, num_classes=CLASSES, **options)
    return NetworkDenoiser(backbone, CosineSchedule())


def unet(images: Tensor, labels: Tensor | None, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    conditional = labels is not None
    backbone = UNet(images.shape[1], width=16, num_levels=2, conditional=conditional, num_classes=CLASSES, **options)
    return NetworkDenoiser(backbone, CosineSchedule())


WHOLE_IMAGE: dict[str, Callable[..., ScoreMachine]] = {
    "is": without_scales(IdealScoreMachine),
    "es": without_scales(EquivariantScoreMachine),
}
LOCAL: dict[str, Callable[..., ScoreMachine]] = {
    "ls": LocalScoreMachine,
    "els": EquivariantLocalScoreMachine,
    "bbels": BoundaryBrokenScoreMachine,
}
MACHINES = WHOLE_IMAGE | LOCAL
"""Machines by the name of their twin in `reference.py`: `(images, labels=None, scales=..., **options)`."""

DENOISERS: dict[str, Callable[[Tensor, Tensor | None], Denoiser]] = {
    **WHOLE_IMAGE,
    **{f"{name}, P = 3": partial(machine, scales=3) for name, machine in LOCAL.items()},
    **{f"{name}, table": partial(machine, scales=TABLE) for name, machine in LOCAL.items()},
    "resnet, zeros": partial(resnet, padding_mode="zeros"),
    "resnet, circular": partial(resnet, padding_mode="circular", time_embedding="mlp"),
    "resnet, v": partial(resnet, prediction="v"),
    "resnet, x0": partial(resnet, prediction="x0"),
    "unet, zeros": partial(unet, padding_mode="zeros"),
    "unet, circular, attention": partial(unet, padding_mode="circular", time_embedding="mlp", attention=[1]),
}
"""Denoisers `(images, labels or None)`, conditional exactly when there are labels."""


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1], float64 with the digits of float32, so that both precisions see the same numbers."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1).double()


def random_noise(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal, otherwise as `random_images`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def levels(*alpha_bar: float) -> Tensor:
    return torch.tensor(alpha_bar, dtype=torch.float64)


def relative_error(result: Tensor, expected: Tensor) -> Tensor:
    """(batch,) norm of the error of each image, relative to the norm of what is expected."""
    error = (result.double() - expected.double()).flatten(1).norm(dim=1)
    return error / expected.double().flatten(1).norm(dim=1)


class DenoiserContract:
    """What every denoiser keeps to; a subclass parametrises `build` and `conditional`."""

    ALPHA_BAR = levels(0.03, 0.5, 0.9, 0.5)
    LABELS = torch.tensor([2, 0, 1, 1])

    @pytest.fixture
    def denoiser(self, build: Callable[[Tensor, Tensor | None], Denoiser], conditional: bool) -> Denoiser:
        images = random_images(7, CHANNELS, HEIGHT, WIDTH)
        return build(images, torch.arange(7) % CLASSES if conditional else None).double()

    @pytest.fixture
    def labels(self, conditional: bool) -> Tensor | None:
        return self.LABELS if conditional else None

    @pytest.fixture
    def x_t(self) -> Tensor:
        shape = (len(self.ALPHA_BAR), CHANNELS, HEIGHT, WIDTH)
        return add_noise(random_images(*shape, seed=2), random_noise(*shape), self.ALPHA_BAR)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_output_is_like_the_input(self, denoiser, x_t, labels, dtype, device):
        x_t = x_t.to(device, dtype)
        labels = labels if labels is None else labels.to(device)
        x0 = denoiser.to(device, dtype)(x_t, self.ALPHA_BAR, labels)
        assert (x0.shape, x0.dtype, x0.device) == (x_t.shape, x_t.dtype, x_t.device)
        assert x0.isfinite().all()

    def test_batch_equals_one_at_a_time(self, denoiser, x_t, labels):
        whole = denoiser(x_t, self.ALPHA_BAR, labels)
        for i in range(len(x_t)):
            one = slice(i, i + 1)
            alone = denoiser(x_t[one], self.ALPHA_BAR[one], None if labels is None else labels[one])
            torch.testing.assert_close(whole[one], alone, rtol=1e-10, atol=1e-10)

    def test_float32_is_near_float64(self, denoiser, x_t, labels):
        exact = denoiser.eps(x_t, self.ALPHA_BAR, labels)
        rounded = denoiser.float().eps(x_t.float(), self.ALPHA_BAR, labels)
        assert (relative_error(rounded, exact) <= 1e-4).all()

    def test_eps_and_forward_agree(self, denoiser, x_t, labels):
        implied = eps_from_x0(x_t, denoiser(x_t, self.ALPHA_BAR, labels), self.ALPHA_BAR)
        torch.testing.assert_close(denoiser.eps(x_t, self.ALPHA_BAR, labels), implied, rtol=1e-10, atol=1e-10)

    def test_noise_level_matters(self, denoiser, x_t, labels):
        other = denoiser(x_t, self.ALPHA_BAR / 2, labels)
        assert not torch.allclose(denoiser(x_t, self.ALPHA_BAR, labels), other, atol=1e-3)

    def test_labels_matter_exactly_when_conditional(self, denoiser, x_t, labels, conditional):
        others = None if labels is None else (labels + 1) % CLASSES
        change = denoiser(x_t, self.ALPHA_BAR, labels) - denoiser(x_t, self.ALPHA_BAR, others)
        assert bool((change.abs() > 1e-3).any()) is conditional
        assert denoiser.conditional is conditional
        assert (denoiser.select_labels(self.LABELS) is None) is not conditional

    def test_call_leaves_no_trace(self, denoiser, x_t, labels):
        before = x_t.clone()
        state = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
        first = denoiser(x_t, self.ALPHA_BAR, labels)
        assert torch.is_grad_enabled()
        assert torch.equal(x_t, before)
        assert torch.equal(first, denoiser(x_t, self.ALPHA_BAR, labels))
        assert all(torch.equal(tensor, state[name]) for name, tensor in denoiser.state_dict().items())

    def test_gradients_exist_exactly_where_there_is_something_to_train(self, denoiser, x_t, labels):
        x0 = denoiser(x_t.requires_grad_(), self.ALPHA_BAR, labels)
        assert x0.requires_grad == (len(list(denoiser.parameters())) > 0)

    @pytest.mark.usefixtures("unchecked")
    def test_wrong_channel_count_is_refused(self, denoiser, x_t, labels):
        with pytest.raises(InputError, match=rf"not 3 x {HEIGHT} x {WIDTH}"):
            denoiser(torch.cat([x_t, x_t[:, :1]], dim=1), self.ALPHA_BAR, labels)

    @pytest.mark.usefixtures("unchecked")
    def test_one_alpha_bar_per_image_is_demanded(self, denoiser, x_t, labels):
        with pytest.raises(InputError, match=r"4 images, alpha_bar of \(3,\)"):
            denoiser(x_t, self.ALPHA_BAR[:3], labels)

    @pytest.mark.parametrize("value", [0.0, 1.0, -0.25, 1.5, float("nan")])
    def test_alpha_bar_outside_its_range_is_refused(self, denoiser, x_t, labels, value):
        with pytest.raises(InputError, match=rf"alpha_bar must lie in \(0, 1\), not {value}"):
            denoiser(x_t, levels(0.5, 0.5, value, 0.5), labels)

    def test_labels_are_demanded_exactly_when_conditional(self, denoiser, x_t, conditional):
        labels, complaint = (None, "needs a label") if conditional else (self.LABELS, "takes no labels")
        for method in (denoiser, denoiser.eps):
            with pytest.raises(InputError, match=complaint):
                method(x_t, self.ALPHA_BAR, labels)

    @pytest.mark.usefixtures("unchecked")
    def test_one_label_per_image_is_demanded(self, denoiser, x_t, conditional):
        complaint = "4 images, 3 labels" if conditional else "takes no labels"
        with pytest.raises(InputError, match=complaint):
            denoiser(x_t, self.ALPHA_BAR, self.LABELS[:3])

    def test_label_without_a_class_is_refused(self, denoiser, x_t, conditional):
        complaint = "17" if conditional else "takes no labels"
        with pytest.raises(InputError, match=complaint):
            denoiser(x_t, self.ALPHA_BAR, torch.tensor([0, 17, 0, 0]))
