"""Which images come next: a training's data order and augmentation, epoch by epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.common.seeding import stream
from rlmix.data.dataset import Augmented, Dataset
from rlmix.maps.approximate import Moment
from rlmix.recipes import Recipe


class Order:
    """Draws the training split's batches, in a new order every epoch.

    Attributes:
        generators: Of the order, and of the augmentation.
        indices: Into the training split, in this epoch's order.
        epoch: Epochs begun.
        batch: Batches drawn in this epoch.
        moment: Of the batch drawn last.
    """

    def __init__(self, data: Dataset, recipe: Recipe, seed: int, ranks: Ranks) -> None:
        self.data, self.recipe, self.ranks = data, recipe, ranks
        self.steps_per_epoch = len(data.train_labels) // recipe.batch_size
        self.generators = (stream(seed, "order"), stream(seed, "augmentation"))
        self.indices = torch.empty(0, dtype=torch.int64)
        self.epoch, self.batch = 0, self.steps_per_epoch
        self.moment = Moment(self.epoch, self.batch)
        self._batches: Iterator[Augmented] | None = None

    def begin_epoch(self) -> bool:
        """Draw the order of the next epoch where the last one is over; whether it was."""
        if self.batch < self.steps_per_epoch:
            return False
        self.indices = torch.randperm(len(self.data.train_labels), generator=self.generators[0])
        self.epoch, self.batch, self._batches = self.epoch + 1, 0, None
        return True

    def next_batch(self) -> Augmented:
        """The next one of an epoch that has begun."""
        if self._batches is None:
            size = self.recipe.batch_size
            left = self.indices[self.batch * size : self.steps_per_epoch * size].reshape(-1, size)
            self._batches = self.data.train_batches(left, self.recipe, self.generators[1], self.epoch, self.ranks)
        pixels = next(self._batches)
        self.batch += 1
        self.moment = Moment(self.epoch, self.batch, pixels.places, pixels.draw)
        return pixels

    def skip_epoch(self) -> None:
        """Leave the rest of this epoch out."""
        self.batch = self.steps_per_epoch

    def go_to(self, epoch: int, batch: int, indices: Tensor) -> None:
        """Continue after so many batches of an epoch in this order; the generators are to be set beside."""
        self.epoch, self.batch, self.indices, self._batches = epoch, batch, indices.cpu(), None
