"""What tests of machines that draw share: images, and few enough draws that not all candidates are looked at."""

import pytest
import torch
from sklearn.datasets import load_digits

from elslightning.machines import approximate


@pytest.fixture(scope="session")
def digits():
    return torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1


@pytest.fixture
def few(monkeypatch):
    """Nowhere are all candidates looked at, however few there are."""
    monkeypatch.setattr(approximate, "ALL", 0)
    monkeypatch.setattr(approximate, "EXHAUSTED", 0)
    monkeypatch.setattr(approximate, "FIRST", 512)
