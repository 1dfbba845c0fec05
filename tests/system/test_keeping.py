"""What is kept for work that was interrupted: found again whole, or made anew."""

import io
import random

import numpy as np
import pytest
import torch

from elslightning.system.keeping import Kept

pytestmark = pytest.mark.reliability

PARTS = (torch.arange(3), "a machine", None)
RESULT = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def kept(tmp_path):
    """What keeps, and the file with the result."""
    keep = Kept(tmp_path)
    assert torch.equal(keep(PARTS, RESULT.clone), RESULT)
    (path,) = tmp_path.iterdir()
    return keep, path


def made(keep, parts=PARTS):
    """What comes back, and whether it was made anew."""
    times = []
    found = keep(parts, lambda: times.append(1) or RESULT.clone())
    return torch.equal(found, RESULT), bool(times)


def test_a_result_is_found_again_and_others_are_not(kept):
    keep, path = kept
    assert made(keep) == (True, False)
    assert made(keep, (*PARTS, "more")) == (True, True)
    assert np.array_equal(np.load(path), RESULT.numpy())


def test_no_flipped_bit_goes_unnoticed(kept):
    keep, path = kept
    whole, generator = path.read_bytes(), random.Random(0)
    for position in range(0, len(whole), 3):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(spoilt))
        assert made(keep) == (True, True)
        assert made(keep) == (True, False)


def test_a_file_of_another_name_or_kind_is_made_anew(kept):
    keep, path = kept
    content = path.read_bytes()
    keep((*PARTS, "more"), RESULT.neg)
    (other,) = set(path.parent.iterdir()) - {path}
    path.write_bytes(other.read_bytes())
    assert made(keep) == (True, True)
    arrays = io.BytesIO()
    np.savez(arrays, result=RESULT.numpy())
    for spoilt in (arrays.getvalue(), b"", content[:-32], content[:40], content[: len(content) // 2]):
        path.write_bytes(spoilt)
        assert made(keep) == (True, True)
