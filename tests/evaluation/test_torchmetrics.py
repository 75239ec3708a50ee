"""Metrics against torchmetrics, which comes with the `dev` extra: where it is installed, every process imports it by lightning-fabric."""

import numpy as np
import pytest
import torch

from rlmix import evaluation as metrics

classification = pytest.importorskip("torchmetrics.functional.classification", reason="of the dev extra")


def random_predictions(seed: int, number: int, num_classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.dirichlet(np.full(num_classes, 0.3), number)), torch.tensor(rng.integers(0, num_classes, number))


@pytest.mark.parametrize("seed", range(5))
def test_ece_within_a_millionth_where_torchmetrics_is_right(seed):
    """Away from confidence 1 and from edges, where torchmetrics puts images elsewhere."""
    probabilities, labels = random_predictions(seed, 2000)
    expected = classification.multiclass_calibration_error(probabilities, labels, num_classes=7, n_bins=15)
    assert metrics.expected_calibration_error(probabilities, labels) / 100 == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_topk_is_the_same(seed, k):
    probabilities, labels = random_predictions(seed, 400)
    logits = (probabilities + 1e-12).log().float()
    expected = classification.multiclass_accuracy(logits.softmax(1), labels, num_classes=7, top_k=k, average="micro")
    assert int(metrics.topk_correct(logits, labels, k)) == round(float(expected) * len(labels))
