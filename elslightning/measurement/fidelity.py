"""Fidelity: how sure a small classifier, trained on the same images, is of what a sample shows."""

import warnings

import torch
from jaxtyping import Float64
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import Bank, Images, Labels

MOST = 10_000
"""Training images that the classifier sees, the first."""
STEPS = 1000
"""Steps of its training, at most, but for ten epochs of many images."""


class Classifier:
    """A perceptron of one hidden layer, trained on images and their labels; nothing is downloaded.

    A classifier of classes alone is as sure of noise as of an image. This one has one class more, of what is no image:
    as many as a class has on average, half noise and half mosaics of the training images' patches in disorder.

    Args:
        images: (N, channel, height, width) floating point in [-1, 1], or bytes.
        labels: (N,) int64.
        nothing: (M, channel, height, width), what belongs to no class.
        seed: of its weights.
    """

    def __init__(self, images: Bank, labels: Labels, nothing: Tensor, *, seed: int = 0) -> None:
        self._none = int(labels.max()) + 1
        shown = torch.cat([to_floats(images[:MOST].cpu()).float(), nothing.float()])
        classes = torch.cat([labels[:MOST].cpu(), torch.full((len(nothing),), self._none)])
        epochs = max(10, STEPS // -(-len(shown) // 200))  # in batches of 200
        self._network = MLPClassifier((128,), max_iter=epochs, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._network.fit(shown.flatten(1).numpy(), classes.numpy())

    def fidelity(self, samples: Images, labels: Labels | None = None) -> Float64[Tensor, " batch"]:
        """The probability, from 0 to 1, of each sample's label; without labels, that of its most probable class."""
        found = self._network.predict_proba(samples.float().cpu().clamp(-1, 1).flatten(1).numpy())
        probability, known = torch.from_numpy(found).double(), torch.from_numpy(self._network.classes_)
        if labels is None:
            return probability[:, known != self._none].amax(dim=1)
        return torch.where(known[None, :] == labels.cpu()[:, None], probability, 0.0).sum(dim=1)
