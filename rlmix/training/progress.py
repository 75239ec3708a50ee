"""Where a training stands."""

from rlmix.training.sampler import Order


def count_mixed(part: float, epochs: int) -> int:
    """How many of so many epochs mix, where that part of them does: one at least."""
    return max(1, round(part * epochs))


class Progress:
    """Epochs and steps of a training: how many there are, and how many are done.

    Args:
        order: Of its batches.
        epochs: In all.
        mixed_epochs: In which images are mixed, the first ones.

    Attributes:
        num_steps: Of the whole training.
        trained: Steps taken in this epoch; one fewer than the batches drawn while a batch waits for its step.
    """

    def __init__(self, order: Order, epochs: int, mixed_epochs: int) -> None:
        self.order, self.epochs, self.mixed_epochs = order, epochs, mixed_epochs
        self.steps_per_epoch = order.steps_per_epoch
        self.num_steps = self.steps_per_epoch * epochs
        self.trained = self.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Epochs begun."""
        return self.order.epoch

    @property
    def global_step(self) -> int:
        """Steps taken since the beginning."""
        return (self.epoch - 1) * self.steps_per_epoch + self.trained

    @property
    def at_epoch_end(self) -> bool:
        """Whether the epoch's last step has been taken."""
        return self.trained == self.steps_per_epoch

    @property
    def steps_left(self) -> int:
        """Of the epoch in progress; of the next one where none is."""
        return self.steps_per_epoch - self.trained % self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the training budget is used up."""
        return self.at_epoch_end and self.epoch == self.epochs

    @property
    def mixed_steps(self) -> int:
        """Steps of the epochs in which images are mixed."""
        return self.mixed_epochs * self.steps_per_epoch

    @property
    def mixing_finished(self) -> bool:
        """Whether nothing is left to mix: the rest of the training is on clean images, or there is none."""
        return self.epoch > self.mixed_epochs or (self.epoch == self.mixed_epochs and self.at_epoch_end)
