"""What machines are given: what is no set of images in [-1, 1] is refused in a line that says what is needed."""

import re

import numpy as np
import pytest
import torch

from elslightning.machines import IdealScoreMachine, LocalScoreMachine
from elslightning.machines.registry import ENTRIES
from elslightning.system.errors import InputError

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("unchecked")]

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
BANKS = {
    "integers": ((IMAGES * 100).long(), "not Tensor of torch.int64|not torch.int64"),
    "0 … 255 as floats": ((IMAGES + 1) * 127.5, r"must lie in \[-1, 1\], not in \[.*, 2.*\]"),
    "huge": (IMAGES * 1e20, r"must lie in \[-1, 1\]"),
    "complex": (IMAGES.to(torch.complex64), "not torch.complex64"),
    "truth values": (IMAGES > 0, "not torch.bool"),
    "channels last": (torch.zeros(6, 12, 12, 3), r"images.permute\(0, 3, 1, 2\)"),
    "numpy": (IMAGES.numpy(), "torch.from_numpy"),
    "a list": (IMAGES.tolist(), "torch tensor, not list"),
    "not finite": (torch.where(IMAGES > 0.9, torch.nan, IMAGES), "not finite"),
}


@pytest.mark.parametrize("what", BANKS)
def test_a_bank_of_another_kind_is_refused_by_every_machine(what):
    bank, reason = BANKS[what]
    for entry in ENTRIES:
        with pytest.raises(InputError, match=reason) as refused:
            entry.machine(bank, **entry.example(8, 8))
        assert len(refused.value.problems) == 1
        assert "\n" not in str(refused.value)


def test_bytes_and_all_floating_point_numbers_are_taken():
    x_t, alpha_bar = torch.zeros(1, 1, 8, 8), torch.tensor([0.5], dtype=torch.float64)
    for bank in (((IMAGES + 1) * 127.5).byte(), IMAGES.half(), IMAGES.bfloat16(), IMAGES.double(), IMAGES * 1.0005):
        assert IdealScoreMachine(bank)(x_t, alpha_bar).abs().max() <= 1.01


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (torch.zeros(6), "int64 tensor, not Tensor of torch.float32"),
        (np.zeros(6), "torch.from_numpy"),
        ([0] * 6, "not list"),
        (torch.zeros(5, dtype=torch.int64), "6 images and 5 labels"),
    ],
    ids=["floats", "numpy", "list", "fewer"],
)
def test_labels_of_another_kind_are_refused(labels, reason):
    with pytest.raises(InputError, match=reason):
        IdealScoreMachine(IMAGES, labels)


@pytest.mark.parametrize(
    ("x_t", "alpha_bar", "reason"),
    [
        (np.zeros((1, 1, 8, 8)), torch.tensor([0.5], dtype=torch.float64), "takes images as a torch tensor"),
        (torch.zeros(1, 1, 8, 8), 0.5, "takes alpha_bar as a torch tensor, not float"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), torch.tensor([0.5], dtype=torch.float64), "not torch.int64"),
    ],
    ids=["numpy", "a number", "integers"],
)
def test_queries_of_another_kind_are_refused(x_t, alpha_bar, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        IdealScoreMachine(IMAGES)(x_t, alpha_bar)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_weighed_in_single(dtype):
    """At low noise log-weights reach thousands, and half precision would not know which candidate is nearest."""
    generator = torch.Generator().manual_seed(1)
    alpha_bar = torch.tensor([0.999, 0.5], dtype=torch.float64)
    x_t = (IMAGES[:2] + 0.02 * torch.randn(2, 1, 8, 8, generator=generator)).to(dtype)
    for machine in (IdealScoreMachine(IMAGES), LocalScoreMachine(IMAGES, scales=3)):
        found = machine(x_t, alpha_bar)
        assert found.dtype == dtype
        torch.testing.assert_close(found, machine(x_t.float(), alpha_bar).to(dtype), rtol=0, atol=0)
