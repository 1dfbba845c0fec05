"""The contract of every denoiser, as a suite for pytest: whoever writes one tests it with ours.

A subclass says how the denoiser is made, and pytest finds the tests:

>>> import elslightning as els
>>> class TestMine(els.testing.DenoiserContract):
...     channels, height, width = 1, 8, 8
...
...     def make(self, images, labels):
...         return els.BoundaryBrokenScoreMachine(images, labels, scales=3)

A trained denoiser leaves the images alone. Several denoisers share one class by
`@pytest.mark.parametrize("build", [...])`, where each `build(images, labels)` returns one; by
`@pytest.mark.parametrize("conditional", [False, True])` they are tested with and without labels. For the values in
failed assertions, `conftest.py` says `pytest.register_assert_rewrite("elslightning.testing")`.
"""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.schedule import add_noise
from elslightning.system.errors import InputError

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1], float64 with the digits of float32, so that both precisions see the same numbers."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1).double()


def random_noise(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal, otherwise as `random_images`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def levels(*alpha_bar: float) -> Tensor:
    """Signal powers as denoisers take them: (batch,) float64."""
    return torch.tensor(alpha_bar, dtype=torch.float64)


def relative_error(result: Tensor, expected: Tensor) -> Tensor:
    """(batch,) norm of the error of each image, relative to the norm of what is expected."""
    error = (result.double() - expected.double()).flatten(1).norm(dim=1)
    return error / expected.double().flatten(1).norm(dim=1)


class DenoiserContract:
    """What every `Denoiser` keeps to: E[x0 | x_t] of the shape, dtype and device of x_t; the same alone as in a batch,
    in float32 as in float64, and the second time as the first; and `InputError` for what it cannot take.

    A subclass implements `make`, and sets what differs from here.

    Attributes:
        channels, height, width: of the images.
        classes: how many there are for a conditional denoiser, at least 3.
        is_conditional: whether `make` is given labels, and its denoiser needs them.
    """

    channels: int = 2
    height: int = 6
    width: int = 8  # even sides, which a UNet can halve
    classes: int = 3
    is_conditional: bool = False

    ALPHA_BAR = levels(0.03, 0.5, 0.9, 0.5)
    LABELS = torch.tensor([2, 0, 1, 1])

    def make(self, images: Tensor, labels: Tensor | None) -> Denoiser:
        """The denoiser to test.

        Args:
            images: (7, channel, height, width) float64 in [-1, 1], for one with a bank.
            labels: (7,) int64, all classes among them; None for an unconditional one.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method make(images, labels) that returns a denoiser")

    @pytest.fixture
    def build(self) -> Callable[[Tensor, Tensor | None], Denoiser]:
        """Makes the denoiser: `make`, unless a parameter of this name takes its place."""
        return self.make

    @pytest.fixture
    def conditional(self) -> bool:
        """Whether it needs labels: `is_conditional`, unless a parameter of this name takes its place."""
        return self.is_conditional

    @pytest.fixture
    def denoiser(self, build: Callable[[Tensor, Tensor | None], Denoiser], conditional: bool) -> Denoiser:
        images = random_images(7, self.channels, self.height, self.width)
        return build(images, torch.arange(7) % self.classes if conditional else None).double()

    @pytest.fixture
    def labels(self, conditional: bool) -> Tensor | None:
        return self.LABELS if conditional else None

    @pytest.fixture
    def x_t(self) -> Tensor:
        shape = (len(self.ALPHA_BAR), self.channels, self.height, self.width)
        return add_noise(random_images(*shape, seed=2), random_noise(*shape), self.ALPHA_BAR)

    @pytest.fixture
    def unchecked(self) -> Iterator[None]:
        """No checks of signatures, where tests install them: what users get, so that the denoiser's own errors show."""
        jaxtyping.config.update("jaxtyping_disable", True)
        yield
        jaxtyping.config.update("jaxtyping_disable", False)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_output_is_like_the_input(
        self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None, dtype: torch.dtype, device: str
    ) -> None:
        x_t = x_t.to(device, dtype)
        labels = labels if labels is None else labels.to(device)
        x0 = denoiser.to(device, dtype)(x_t, self.ALPHA_BAR, labels)
        assert (x0.shape, x0.dtype, x0.device) == (x_t.shape, x_t.dtype, x_t.device)
        assert x0.isfinite().all()

    def test_batch_equals_one_at_a_time(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        whole = denoiser(x_t, self.ALPHA_BAR, labels)
        for i in range(len(x_t)):
            one = slice(i, i + 1)
            alone = denoiser(x_t[one], self.ALPHA_BAR[one], None if labels is None else labels[one])
            torch.testing.assert_close(whole[one], alone, rtol=1e-10, atol=1e-10)

    def test_float32_is_near_float64(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        exact = denoiser.eps(x_t, self.ALPHA_BAR, labels)
        rounded = denoiser.float().eps(x_t.float(), self.ALPHA_BAR, labels)
        assert (relative_error(rounded, exact) <= 1e-4).all()

    def test_eps_and_forward_agree(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        implied = eps_from_x0(x_t, denoiser(x_t, self.ALPHA_BAR, labels), self.ALPHA_BAR)
        torch.testing.assert_close(denoiser.eps(x_t, self.ALPHA_BAR, labels), implied, rtol=1e-10, atol=1e-10)

    def test_noise_level_matters(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        other = denoiser(x_t, self.ALPHA_BAR / 2, labels)
        assert not torch.allclose(denoiser(x_t, self.ALPHA_BAR, labels), other, atol=1e-3)

    def test_labels_matter_exactly_when_conditional(
        self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None, conditional: bool
    ) -> None:
        others = None if labels is None else (labels + 1) % self.classes
        change = denoiser(x_t, self.ALPHA_BAR, labels) - denoiser(x_t, self.ALPHA_BAR, others)
        assert bool((change.abs() > 1e-3).any()) is conditional
        assert denoiser.conditional is conditional
        assert (denoiser.select_labels(self.LABELS) is None) is not conditional

    def test_call_leaves_no_trace(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        before = x_t.clone()
        state = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
        first = denoiser(x_t, self.ALPHA_BAR, labels)
        assert torch.is_grad_enabled()
        assert torch.equal(x_t, before)
        assert torch.equal(first, denoiser(x_t, self.ALPHA_BAR, labels))
        assert all(torch.equal(tensor, state[name]) for name, tensor in denoiser.state_dict().items())

    def test_gradients_exist_exactly_where_there_is_something_to_train(
        self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None
    ) -> None:
        x0 = denoiser(x_t.requires_grad_(), self.ALPHA_BAR, labels)
        assert x0.requires_grad == (len(list(denoiser.parameters())) > 0)

    @pytest.mark.usefixtures("unchecked")
    def test_wrong_channel_count_is_refused(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        with pytest.raises(InputError, match=rf"not {self.channels + 1} x {self.height} x {self.width}"):
            denoiser(torch.cat([x_t, x_t[:, :1]], dim=1), self.ALPHA_BAR, labels)

    @pytest.mark.usefixtures("unchecked")
    def test_one_alpha_bar_per_image_is_demanded(self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None) -> None:
        with pytest.raises(InputError, match=r"4 images, alpha_bar of \(3,\)"):
            denoiser(x_t, self.ALPHA_BAR[:3], labels)

    def test_alpha_bar_outside_its_range_is_refused(
        self, denoiser: Denoiser, x_t: Tensor, labels: Tensor | None
    ) -> None:
        for value in (0.0, 1.0, -0.25, 1.5, float("nan")):
            with pytest.raises(InputError, match=rf"alpha_bar must lie in \(0, 1\), not {value}"):
                denoiser(x_t, levels(0.5, 0.5, value, 0.5), labels)

    def test_labels_are_demanded_exactly_when_conditional(
        self, denoiser: Denoiser, x_t: Tensor, conditional: bool
    ) -> None:
        labels, complaint = (None, "needs a label") if conditional else (self.LABELS, "takes no labels")
        for method in (denoiser, denoiser.eps):
            with pytest.raises(InputError, match=complaint):
                method(x_t, self.ALPHA_BAR, labels)

    @pytest.mark.usefixtures("unchecked")
    def test_one_label_per_image_is_demanded(self, denoiser: Denoiser, x_t: Tensor, conditional: bool) -> None:
        complaint = "4 images, 3 labels" if conditional else "takes no labels"
        with pytest.raises(InputError, match=complaint):
            denoiser(x_t, self.ALPHA_BAR, self.LABELS[:3])

    def test_label_without_a_class_is_refused(self, denoiser: Denoiser, x_t: Tensor, conditional: bool) -> None:
        label = self.classes + 14
        complaint = str(label) if conditional else "takes no labels"
        with pytest.raises(InputError, match=complaint):
            denoiser(x_t, self.ALPHA_BAR, torch.tensor([0, label, 0, 0]))
