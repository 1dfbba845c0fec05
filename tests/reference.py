"""The machines once more, naively: float64, one pixel at a time, all candidates at once."""

import functools
import math
from typing import Any

import torch
from torch import Tensor

SOFT = {"softness": 1.2, "response": 0.8}
"""What `posterior_mean` gives soft machines."""


def parameters(machine: str, height: int, width: int) -> dict[str, Any]:
    """What `posterior_mean` gives machines that have other parameters than a patch size, on images of this size."""
    return {
        "is_tempered": {"temperature": 1.7},
        "scfdm": {"smoothing": 0.6, "draws": 3, "seed": 5},
        "pca": {"threshold": 0.4},
        "pspc_square": {"scales": min(2, height, width)},
        "pspc_flex": {"crops": some_crops(height, width)},
    }.get(machine, {})


def some_crops(height: int, width: int) -> Tensor:
    """Crops of any shape (crop, height, width): one is empty, two are equal, and none covers the first pixel."""
    generator = torch.Generator().manual_seed(4)
    crops = torch.rand(height * width + 2, height, width, generator=generator) < 0.4
    crops[:, :1, :1] = False
    crops[0] = False
    crops[1] = crops[-1]
    return crops


def window(images: Tensor, row: int, column: int, radius: int, padding_mode: str) -> Tensor:
    """The patches (..., P, P) around one pixel of images (..., height, width), by reading its rows and columns."""
    height, width = images.shape[-2:]
    rows = torch.arange(row - radius, row + radius + 1)[:, None]
    columns = torch.arange(column - radius, column + radius + 1)[None, :]
    patch = images[..., rows % height, columns % width]
    if padding_mode == "circular":
        return patch
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return patch * inside


def overlap(row: int, column: int, height: int, width: int, radius: int) -> tuple[int, ...]:
    """By how many pixels a window reaches beyond each of the four borders."""
    below, right = height - 1 - row, width - 1 - column
    return tuple(max(0, radius - room) for room in (row, below, column, right))


@functools.cache
def candidates(machine: str, row: int, column: int, height: int, width: int, radius: int) -> list[tuple[int, int]]:
    """The locations a pixel may copy from."""
    everywhere = [(y, x) for y in range(height) for x in range(width)]
    if machine == "ls":
        return [(row, column)]
    if machine == "els":
        return everywhere
    own = overlap(row, column, height, width, radius)
    return [(y, x) for y, x in everywhere if overlap(y, x, height, width, radius) == own]


def softmax_mean(squared_distance: Tensor, value: Tensor, alpha_bar: float | Tensor) -> Tensor:
    """(…, candidate) distances and (candidate, value) values to (…, value)."""
    return torch.softmax(-squared_distance / (2 * (1 - alpha_bar)), dim=-1) @ value


def patch_posterior_means(machine: str, x_t: Tensor, alpha_bar: Tensor, images: Tensor, patch_size: int) -> Tensor:
    """`ls`, `els` or `bbels` for images (batch, channel, height, width) and a bank (N, channel, height, width)."""
    x_t, images, alpha_bar = x_t.double(), images.double(), alpha_bar.double()[:, None]
    signal = alpha_bar.sqrt()[..., None, None, None]
    height, width = x_t.shape[-2:]
    radius = patch_size // 2
    mode = "circular" if machine == "els" else "zeros"
    patches = {(y, x): window(images, y, x, radius, mode) for y in range(height) for x in range(width)}
    result = torch.empty_like(x_t)
    for row in range(height):
        for column in range(width):
            query = window(x_t, row, column, radius, mode)
            keys = torch.cat([patches[at] for at in candidates(machine, row, column, height, width, radius)])
            distance = (query[:, None] - signal * keys).square().sum(dim=(2, 3, 4))
            result[..., row, column] = softmax_mean(distance, keys[:, :, radius, radius], alpha_bar)
    return result


def bell(width: float, row: int, column: int) -> float:
    """exp(-Δ² / (2 width²)); of no width, one at Δ = 0 only."""
    square = row**2 + column**2
    return math.exp(-square / (2 * width**2)) if width > 0 else float(square == 0)


def soft_posterior_mean(machine: str, x_t: Tensor, alpha_bar: float, *options: Any) -> Tensor:
    """`soft_ls`, `soft_els` or `soft_bbels` for one image; the options are those of `soft_posterior_means`."""
    level = torch.tensor([alpha_bar], dtype=torch.float64)
    return soft_posterior_means(machine, x_t[None], level, *options)[0]


def soft_posterior_means(
    machine: str,
    x_t: Tensor,
    alpha_bar: Tensor,
    images: Tensor,
    patch_size: int,
    softness: float,
    response: float,
    precision: Tensor | None = None,
) -> Tensor:
    """The same for images (batch, channel, height, width): every location paints its mean patch around itself.

    Given, (patch_size, patch_size) precisions stand in the place of those of the softness.
    """
    x_t, images, alpha_bar = x_t.double(), images.double(), alpha_bar.double()[:, None]
    signal = alpha_bar.sqrt()[..., None, None, None]
    height, width = x_t.shape[-2:]
    radius = patch_size // 2
    hard = machine.removeprefix("soft_")
    mode = "circular" if hard == "els" else "zeros"
    around = [(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)]
    if precision is None:
        bells = torch.tensor([bell(softness, y, x) for y, x in around], dtype=torch.float64)
        precision = bells.reshape(patch_size, patch_size)
    patches = {(y, x): window(images, y, x, radius, mode) for y in range(height) for x in range(width)}
    shares = torch.tensor([bell(response, y, x) for y, x in around], dtype=torch.float64).reshape(precision.shape)
    painted, cover = torch.zeros_like(x_t), torch.zeros(height, width, dtype=torch.float64)
    for row, column in patches:
        query = window(x_t, row, column, radius, mode)
        keys = torch.cat([patches[at] for at in candidates(hard, row, column, height, width, radius)])
        distance = (precision * (query[:, None] - signal * keys).square()).sum(dim=(2, 3, 4))
        mean = softmax_mean(distance, keys.flatten(1), alpha_bar).reshape(query.shape)
        # Where the window falls: pixels beyond the border are on the other side, or nowhere.
        down, right = torch.arange(row - radius, row + radius + 1), torch.arange(column - radius, column + radius + 1)
        if mode == "circular":
            down, right = down % height, right % width
        y, x = (down >= 0) & (down < height), (right >= 0) & (right < width)
        share = shares[y][:, x]
        painted[..., down[y][:, None], right[x]] += share * mean[..., y, :][..., x]
        cover[down[y][:, None], right[x]] += share
    return painted / cover


def ideal_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor, temperature: float = 1.0) -> Tensor:
    """`is` for one image, or `is_tempered`."""
    x_t, images = x_t.double(), images.double()
    distance = (x_t - alpha_bar**0.5 * images).square().sum(dim=(1, 2, 3))
    return softmax_mean(distance / temperature, images.flatten(1), alpha_bar).reshape(x_t.shape)


def translates(images: Tensor) -> Tensor:
    """All circular translates of all images."""
    _, _, height, width = images.shape
    return torch.cat([images.roll((down, right), dims=(2, 3)) for down in range(height) for right in range(width)])


def gaussian_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor) -> Tensor:
    """`wiener` for one image: of a Gaussian with the mean and the covariance of the images.

    From the products of images with each other: near alpha_bar = 1 the covariance, which has null directions, cannot be
    inverted to enough digits.
    """
    data, signal = images.double().flatten(1), alpha_bar**0.5
    mean = data.mean(dim=0)
    centred = (data - mean) / len(data) ** 0.5  # the covariance is centred.T @ centred
    noisy = alpha_bar * centred @ centred.T + (1 - alpha_bar) * torch.eye(len(data), dtype=torch.float64)
    offset = x_t.double().flatten() - signal * mean
    return (mean + signal * torch.linalg.solve(noisy, centred @ offset) @ centred).reshape(x_t.shape)


def smoothed_posterior_mean(
    x_t: Tensor, alpha_bar: float, images: Tensor, smoothing: float, draws: int, seed: int
) -> Tensor:
    """`scfdm` for one image."""
    drawn = torch.randn(draws, x_t.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    around = [x_t.double() + smoothing * (1 - alpha_bar) ** 0.5 * one.reshape(x_t.shape) for one in drawn]
    return torch.stack([ideal_posterior_mean(x, alpha_bar, images) for x in around]).mean(dim=0)


def wiener_matrix(alpha_bar: float, images: Tensor) -> Tensor:
    """The Wiener filter (dim, dim) of noisy images, from the covariance of the images."""
    covariance = torch.cov(images.double().flatten(1).T, correction=0).reshape(2 * [images[0].numel()])
    noisy = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(covariance), dtype=torch.float64)
    return alpha_bar * torch.linalg.solve(noisy, covariance)


def pca_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor, threshold: float) -> Tensor:
    """`pca` for one image."""
    query, data = x_t.double().flatten(), images.double().flatten(1)
    result = torch.empty_like(query)
    for coordinate, row in enumerate(wiener_matrix(alpha_bar, images).abs()):
        matters = row >= threshold * row.max() * (1 - 1e-9)
        matters[coordinate] = True
        distance = (query - alpha_bar**0.5 * data)[:, matters].square().sum(dim=1)
        result[coordinate] = softmax_mean(distance, data[:, coordinate : coordinate + 1], alpha_bar)[0]
    return result.reshape(x_t.shape)


def square_crops(side: int, height: int, width: int) -> Tensor:
    """All squares inside an image, (crop, height, width)."""
    crops = torch.zeros(height - side + 1, width - side + 1, height, width, dtype=torch.bool)
    for row in range(height - side + 1):
        for column in range(width - side + 1):
            crops[row, column, row : row + side, column : column + side] = True
    return crops.flatten(0, 1)


def crop_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor, crops: Tensor) -> Tensor:
    """`pspc_square` and `pspc_flex` for one image."""
    x_t, images = x_t.double(), images.double()
    alone = [crop for crop in square_crops(1, *x_t.shape[1:]) if not (crop & crops).any()]
    total, cover = torch.zeros_like(x_t), torch.zeros(x_t.shape[1:], dtype=torch.float64)
    for crop in [*crops, *alone]:
        distance = ((x_t - alpha_bar**0.5 * images) * crop).square().sum(dim=(1, 2, 3))
        total += softmax_mean(distance, images.flatten(1), alpha_bar).reshape(x_t.shape) * crop
        cover += crop
    return total / cover


PATCHES = dict.fromkeys(("ls", "els", "bbels"), patch_posterior_means) | dict.fromkeys(
    ("soft_ls", "soft_els", "soft_bbels"), soft_posterior_means
)


def posterior_mean(machine: str, x_t: Tensor, alpha_bar: float, images: Tensor, patch_size: int) -> Tensor:
    """Any machine by its name."""
    if machine == "is":
        return ideal_posterior_mean(x_t, alpha_bar, images)
    if machine == "mean":
        return images.double().mean(dim=0)
    if machine == "wiener":
        return gaussian_posterior_mean(x_t, alpha_bar, images)
    options = parameters(machine, *x_t.shape[1:])
    if machine == "is_tempered":
        return ideal_posterior_mean(x_t, alpha_bar, images, **options)
    if machine == "scfdm":
        return smoothed_posterior_mean(x_t, alpha_bar, images, **options)
    if machine == "pca":
        return pca_posterior_mean(x_t, alpha_bar, images, **options)
    if machine == "pspc_square":
        crops = square_crops(options["scales"], *x_t.shape[1:])
        return crop_posterior_mean(x_t, alpha_bar, images, crops)
    if machine == "pspc_flex":
        return crop_posterior_mean(x_t, alpha_bar, images, options["crops"])
    if machine == "es":
        return ideal_posterior_mean(x_t, alpha_bar, translates(images))
    if machine in PATCHES:
        level = torch.tensor([alpha_bar], dtype=torch.float64)
        return posterior_means(machine, x_t[None], level, images, patch_size)[0]
    raise KeyError(machine)


def posterior_means(machine: str, x_t: Tensor, alpha_bar: Tensor, images: Tensor, patch_size: int) -> Tensor:
    """The same for images (batch, channel, height, width), each with its level (batch,)."""
    if machine in PATCHES:
        options = SOFT if machine.startswith("soft_") else {}
        return PATCHES[machine](machine, x_t, alpha_bar, images, patch_size, **options)
    pairs = zip(x_t, alpha_bar.tolist(), strict=True)
    return torch.stack([posterior_mean(machine, one, level, images, patch_size) for one, level in pairs])
