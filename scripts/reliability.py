"""How sure a run's classifier is, and how often it is right then: the bins of a reliability diagram, kept in the run's folder."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlmix.checkpoints import list_checkpoints, write_atomically
from rlmix.scripts.saved_run import load_run

FILE = "reliability.json"
NUM_BINS = 15
"""Guo et al. 2017."""


class Bins(NamedTuple):
    """Of each bin ``(i/M, (i+1)/M]`` of confidence: how many test images, their mean confidence, and the share classified right."""

    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    """Both in [0, 1]; 0 where the bin is empty."""


def reliability_bins(probabilities: Tensor, labels: Tensor, num_bins: int = NUM_BINS) -> Bins:
    """Bin test images by the probability of their predicted class.

    Args:
        probabilities: (test, classes).
        labels: (test,).
        num_bins: M.
    """
    largest, predicted = probabilities.double().cpu().max(1)
    confidence, correct = largest.numpy(), (predicted == labels.cpu()).numpy()
    index = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    filled = np.maximum(count, 1)
    sums = (np.bincount(index, weights=values, minlength=num_bins) for values in (confidence, correct))
    return Bins(count, *(total / filled for total in sums))


def save_reliability(folder: Path) -> None:
    """Write the bins of the run in ``folder``, by its newest checkpoint."""
    training = load_run(folder).training
    bins = reliability_bins(training.predict().softmax(1), training.data.test_labels)
    text = json.dumps({name: values.tolist() for name, values in bins._asdict().items()}) + "\n"
    write_atomically(folder / FILE, lambda handle: handle.write(text.encode()))


def load_reliability(folder: Path) -> Bins | None:
    """The bins of a finished run, computed where that was not done yet; None where its checkpoints are gone."""
    if not (folder / FILE).exists():
        if not list_checkpoints(folder / "checkpoints"):
            return None
        save_reliability(folder)
    values = json.loads((folder / FILE).read_text())
    return Bins(**{name: np.array(values[name]) for name in Bins._fields})


def pool(bins: list[Bins]) -> Bins:
    """The bins of several runs together."""
    count = np.sum([entry.images for entry in bins], axis=0)
    filled = np.maximum(count, 1)
    confidence = np.sum([entry.images * entry.confidence for entry in bins], axis=0) / filled
    accuracy = np.sum([entry.images * entry.accuracy for entry in bins], axis=0) / filled
    return Bins(count, confidence, accuracy)
