"""Cutout against loops."""

import image_oracle
import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from torch import nn

import rlmix
from rlmix.mixing.cutmix import box_mask, sample_centers
from rlmix.mixing.cutout import Cutout, erase
from rlmix.mixing.objective import Method
from rlmix.training.trainer import Training

UNUSED = nn.Identity()
"""Cutout asks nothing of the model."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [1, 3, 4, 50])
@pytest.mark.parametrize("batch", [1, 5])
def test_equals_the_loops(side, batch):
    images, labels = torch.randn(batch, 2, 9, 7, generator=seeded(0)), torch.arange(batch) % 3
    mixed = Cutout(side)(UNUSED, images, labels, num_classes=3, generator=seeded(1))
    centers = sample_centers(batch, (9, 7), seeded(1)).tolist()
    for image in range(batch):
        expected = images[image].clone()
        for row in range(9):
            for column in range(7):
                if image_oracle.inside(row, column, centers[image], (side, side)):
                    expected[:, row, column] = 0
        assert torch.equal(mixed.images[image], expected)
        assert mixed.targets[image].tolist() == np.eye(3)[labels[image]].tolist()


def test_by_hand():
    holes = box_mask(torch.tensor([[0, 0], [2, 3]]), (2, 2), (3, 4))
    erased = erase(torch.ones(2, 1, 3, 4), holes)[:, 0]
    assert erased.tolist() == [
        [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
        [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
    ]


def test_a_hole_that_lies_inside_has_the_side_asked_for_and_centres_are_uniform():
    mixed = Cutout(8)(UNUSED, torch.ones(4000, 1, 32, 32), torch.zeros(4000).long(), num_classes=1, generator=seeded(0))
    hole = mixed.images[:, 0] == 0
    heights, widths = hole.any(2).sum(1), hole.any(1).sum(1)
    assert int(heights.max()) == int(widths.max()) == 8
    assert int(heights.min()) == 4  # centre at the border
    whole = int((heights == 8).sum())  # 25 of 32 rows leave 4 pixels above the centre and 3 below
    assert scipy.stats.binomtest(whole, 4000, 25 / 32).pvalue > 0.01
    assert int((hole.sum((1, 2)) == heights * widths).sum()) == 4000
    assert len(torch.unique(hole.flatten(1), dim=0)) > 900  # every image has its own


def test_repeats_with_the_generators_seed_and_leaves_all_else():
    images, labels = torch.rand(8, 3, 9, 9), torch.arange(8)
    kept, state = images.clone(), torch.get_rng_state()
    first, again, other = (Cutout(3)(UNUSED, images, labels, num_classes=8, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("side", [0, -4])
def test_side_out_of_range_is_named(side):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"side must be at least 1, got {side}"):
        Cutout(side)


def test_trains_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    method = Cutout(16)
    assert isinstance(method, Method)
    for _ in range(3):
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
