"""Which batches of an epoch end with a step of the optimizer, where it takes the mean gradient of several."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accumulation:
    """An epoch's batches in groups of ``count``, of which the last holds what is left: a step of the optimizer each.

    Batches of an epoch count from 1.
    """

    count: int
    batches: int
    """Of an epoch."""

    @property
    def per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return self.done(self.batches)

    def begins(self, batch: int) -> bool:
        """Whether it is the first of a group."""
        return (batch - 1) % self.count == 0

    def ends(self, batch: int) -> bool:
        """Whether it is the last of a group; before an epoch's first batch none is open."""
        return batch % self.count == 0 or batch == self.batches

    def size(self, batch: int) -> int:
        """How many batches the group that a batch is of has."""
        first = batch - (batch - 1) % self.count
        return min(self.count, self.batches - first + 1)

    def done(self, batch: int) -> int:
        """Groups that are over after a batch."""
        return batch // self.count + (batch == self.batches and batch % self.count > 0)
