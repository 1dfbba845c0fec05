"""The machines once more, naively: float64, one pixel at a time, all candidates at once."""

import math
from typing import Any

import torch
from torch import Tensor

SOFT = {"softness": 1.2, "response": 0.8}
PARAMETERS: dict[str, dict[str, Any]] = {"soft_ls": SOFT, "soft_els": SOFT, "soft_bbels": SOFT}
"""What `posterior_mean` gives machines that have other parameters than a patch size, by name."""


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


def candidates(machine: str, row: int, column: int, height: int, width: int, radius: int) -> list[tuple[int, int]]:
    """The locations a pixel may copy from."""
    everywhere = [(y, x) for y in range(height) for x in range(width)]
    if machine == "ls":
        return [(row, column)]
    if machine == "els":
        return everywhere
    own = overlap(row, column, height, width, radius)
    return [(y, x) for y, x in everywhere if overlap(y, x, height, width, radius) == own]


def softmax_mean(squared_distance: Tensor, value: Tensor, alpha_bar: float) -> Tensor:
    """(candidate,) distances and (candidate, value) values to (value,)."""
    return torch.softmax(-squared_distance / (2 * (1 - alpha_bar)), dim=0) @ value


def patch_posterior_mean(machine: str, x_t: Tensor, alpha_bar: float, images: Tensor, patch_size: int) -> Tensor:
    """`ls`, `els` or `bbels` for one image (channel, height, width) and a bank (N, channel, height, width)."""
    x_t, images = x_t.double(), images.double()
    _, height, width = x_t.shape
    radius = patch_size // 2
    mode = "circular" if machine == "els" else "zeros"
    patches = {(y, x): window(images, y, x, radius, mode) for y in range(height) for x in range(width)}
    result = torch.empty_like(x_t)
    for row in range(height):
        for column in range(width):
            query = window(x_t, row, column, radius, mode)
            keys = torch.cat([patches[at] for at in candidates(machine, row, column, height, width, radius)])
            distance = (query - alpha_bar**0.5 * keys).square().sum(dim=(1, 2, 3))
            result[:, row, column] = softmax_mean(distance, keys[:, :, radius, radius], alpha_bar)
    return result


def bell(width: float, row: int, column: int) -> float:
    """exp(-Δ² / (2 width²)); of no width, one at Δ = 0 only."""
    square = row**2 + column**2
    return math.exp(-square / (2 * width**2)) if width > 0 else float(square == 0)


def soft_posterior_mean(
    machine: str, x_t: Tensor, alpha_bar: float, images: Tensor, patch_size: int, softness: float, response: float
) -> Tensor:
    """`soft_ls`, `soft_els` or `soft_bbels` for one image: every location paints its mean patch around itself."""
    x_t, images = x_t.double(), images.double()
    _, height, width = x_t.shape
    radius = patch_size // 2
    hard = machine.removeprefix("soft_")
    mode = "circular" if hard == "els" else "zeros"
    around = [(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)]
    precision = torch.tensor([bell(softness, y, x) for y, x in around], dtype=torch.float64)
    precision = precision.reshape(patch_size, patch_size)
    patches = {(y, x): window(images, y, x, radius, mode) for y in range(height) for x in range(width)}
    painted, cover = torch.zeros_like(x_t), torch.zeros(height, width, dtype=torch.float64)
    for row, column in patches:
        query = window(x_t, row, column, radius, mode)
        keys = torch.cat([patches[at] for at in candidates(hard, row, column, height, width, radius)])
        distance = (precision * (query - alpha_bar**0.5 * keys).square()).sum(dim=(1, 2, 3))
        mean = softmax_mean(distance, keys.flatten(1), alpha_bar).reshape(query.shape)
        for y, x in around:
            to = (row + y, column + x)
            if mode == "circular":
                to = (to[0] % height, to[1] % width)
            if 0 <= to[0] < height and 0 <= to[1] < width:
                share = bell(response, y, x)
                painted[:, to[0], to[1]] += share * mean[:, radius + y, radius + x]
                cover[to] += share
    return painted / cover


def ideal_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor) -> Tensor:
    """`is` for one image."""
    x_t, images = x_t.double(), images.double()
    distance = (x_t - alpha_bar**0.5 * images).square().sum(dim=(1, 2, 3))
    return softmax_mean(distance, images.flatten(1), alpha_bar).reshape(x_t.shape)


def translates(images: Tensor) -> Tensor:
    """All circular translates of all images."""
    _, _, height, width = images.shape
    return torch.cat([images.roll((down, right), dims=(2, 3)) for down in range(height) for right in range(width)])


def gaussian_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor) -> Tensor:
    """`wiener` for one image: of a Gaussian with the mean and the covariance of the images."""
    data, query = images.double().flatten(1), x_t.double().flatten()
    mean, covariance = data.mean(dim=0), torch.cov(data.T, correction=0)
    noisy = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(query), dtype=torch.float64)
    offset = torch.linalg.solve(noisy, query - alpha_bar**0.5 * mean)
    return (mean + alpha_bar**0.5 * covariance @ offset).reshape(x_t.shape)


def posterior_mean(machine: str, x_t: Tensor, alpha_bar: float, images: Tensor, patch_size: int) -> Tensor:
    """Any machine by its name."""
    if machine == "is":
        return ideal_posterior_mean(x_t, alpha_bar, images)
    if machine == "mean":
        return images.double().mean(dim=0)
    if machine == "wiener":
        return gaussian_posterior_mean(x_t, alpha_bar, images)
    if machine == "es":
        return ideal_posterior_mean(x_t, alpha_bar, translates(images))
    if machine.startswith("soft_"):
        return soft_posterior_mean(machine, x_t, alpha_bar, images, patch_size, **PARAMETERS[machine])
    return patch_posterior_mean(machine, x_t, alpha_bar, images, patch_size)
