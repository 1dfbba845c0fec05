"""What a measurement asks of the networks that are brought to it."""

import itertools

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.system.errors import InputError


def check_network(network: Denoiser, images: Tensor, labels: Tensor | None) -> None:
    """The network must take the images and every label.

    Raises:
        InputError: for a class-conditional network without labels, and whatever it does not take.
    """
    if network.conditional and labels is None:
        raise InputError("the network is class-conditional, but the data has no labels")
    # One image of the last class: the network refuses what does not fit it.
    last = slice(0, 1) if labels is None else labels.argmax()[None]
    device = next((parameter.device for parameter in network.parameters()), images.device)
    with torch.no_grad():
        network(
            images[last].to(device),
            torch.tensor([0.5], dtype=torch.float64),
            None if labels is None else labels[last].to(device),
        )


def check_peer(name: str, peer: Denoiser, network: Denoiser, images: Tensor, labels: Tensor | None) -> None:
    """Another network among the machines must take what the network takes; a machine always does.

    Raises:
        InputError: naming the one that does not.
    """
    if not peer.learned:
        return
    if peer.conditional != network.conditional:
        kind, other = ("class-conditional" if one.conditional else "unconditional" for one in (peer, network))
        raise InputError(f"machines.{name} is {kind}, but the network to compare it with is {other}")
    try:
        check_network(peer, images, labels)
    except InputError as error:
        raise InputError(f"machines.{name} does not fit the network to compare it with: {error}") from error


def device_of(network: Denoiser | None, images: Tensor) -> torch.device:
    """That of the network; a machine's is where its images are."""
    tensors = () if network is None else itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), images.device)
