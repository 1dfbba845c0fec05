"""What checks the signatures of the package in tests finds what does not keep to them."""

from collections.abc import Iterator
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from signatures import checked
from torch import Tensor

ONE = torch.zeros(2, 3)


@checked
def product(
    a: Float[Tensor, "row inner"], b: Float[Tensor, "inner column"], scale: float = 1
) -> Float[Tensor, "row 1"]:
    return scale * a @ b


@checked
@dataclass
class Point:
    x: float


@checked
def outer(limit: int):
    @checked
    def inner(value: int) -> str:
        return str(value) if value < limit else None

    return inner


@checked
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@checked
def quoted(point: "Point", other: "OnlyForMypy" = None) -> "Point":  # noqa: F821
    return point if other is None else other


def test_what_keeps_to_its_signature_passes():
    assert product(ONE, ONE.T[:, :1], scale=2).shape == (2, 1)
    assert Point(1).x == 1
    assert (outer(3)(1), outer(9)(7)) == ("1", "7")
    assert list(numbers(2)) == [0, 1]
    assert quoted(Point(1), Point(2)) == Point(2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(ONE, ONE),  # two sizes of one dimension
        lambda: product(ONE, ONE.T),  # a result of another shape
        lambda: product(ONE.int(), ONE.int().T[:, :1]),
        lambda: product(ONE, ONE.T[:, :1], scale="2"),
        lambda: Point("1"),
        lambda: outer(3)("1"),
        lambda: outer(3)(5),
        lambda: outer(1.5),
        lambda: numbers("2"),
        lambda: quoted("point"),
        lambda: quoted(Point(1), "other"),
    ],
    ids=range(11),
)
def test_what_does_not_is_named(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


@pytest.mark.usefixtures("unchecked")
def test_unchecked_nothing_is():
    assert product(ONE, ONE.T).shape == (2, 2)
