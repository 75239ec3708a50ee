"""Whether a classifier's confidence is how often it is right (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class ReliabilityBins(NamedTuple):
    """Sums over the images of each of M equal bins ``(i/M, (i+1)/M]`` of confidence: a reliability diagram's data."""

    num_images: Float[Tensor, " bin"]
    confidence: Float[Tensor, " bin"]
    """Sum of the largest probabilities."""
    correct: Float[Tensor, " bin"]
    """Images whose most probable class is their label."""

    @property
    def expected_calibration_error(self) -> float:
        """Mean gap between confidence and accuracy over the bins, weighted by their images, in percent (Eq. 3)."""
        return 100 * float((self.correct - self.confidence).abs().sum() / self.num_images.sum())

    def as_dict(self) -> dict[str, list[float | None]]:
        """The bins' edges, and by bin the number of images, mean confidence and accuracy in [0, 1]; None where it is empty."""
        counts = self.num_images.tolist()
        means = [
            [total / number if number else None for total, number in zip(sums.tolist(), counts, strict=True)]
            for sums in (self.confidence, self.correct)
        ]
        edges: list[float | None] = [edge / len(counts) for edge in range(len(counts) + 1)]
        return {"edges": edges, "count": counts, "confidence": means[0], "accuracy": means[1]}


def reliability_bins(
    probabilities: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], num_bins: int = 15
) -> ReliabilityBins:
    """Count, confidence and right answers by bin of confidence, float64."""
    confidence, prediction = probabilities.double().max(1)
    bins = (confidence * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
    zero = torch.zeros(num_bins, dtype=torch.float64, device=bins.device)
    sums = [
        zero.index_add(0, bins, values.double()) for values in (torch.ones_like(confidence), confidence, prediction == labels)
    ]
    return ReliabilityBins(*(value.cpu() for value in sums))


def expected_calibration_error(
    probabilities: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], num_bins: int = 15
) -> float:
    """:attr:`ReliabilityBins.expected_calibration_error` of ``num_bins`` bins."""
    return reliability_bins(probabilities, labels, num_bins).expected_calibration_error


def pool_bins(bins: Sequence[ReliabilityBins]) -> ReliabilityBins:
    """The bins of several runs together."""
    return ReliabilityBins(*(torch.stack(sums).sum(0) for sums in zip(*bins, strict=True)))
