"""Where a training stands, beside a count of its own, step by step."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlmix.common.ranks import Ranks
from rlmix.recipes import Recipe
from rlmix.training.progress import Progress
from rlmix.training.sampler import Order


def progress_of(num_steps, epochs, mixed_epochs):
    """Of a training whose batches nobody draws."""
    data = SimpleNamespace(train_labels=torch.zeros(2 * num_steps + 1))
    return Progress(Order(data, Recipe(batch_size=2), 0, Ranks()), epochs, mixed_epochs)  # type: ignore[arg-type]


@given(num_steps=st.integers(1, 4), epochs=st.integers(1, 4), mixed=st.integers(1, 4))
def test_every_step_of_a_training(num_steps, epochs, mixed):
    mixed = min(mixed, epochs)
    progress = progress_of(num_steps, epochs, mixed)
    assert (progress.steps_per_epoch, progress.num_steps, progress.mixed_steps) == (
        num_steps,
        num_steps * epochs,
        num_steps * mixed,
    )
    assert (progress.epoch, progress.global_step, progress.steps_left) == (0, 0, num_steps)
    assert progress.at_epoch_end
    assert not progress.finished
    assert not progress.mixing_finished
    done = 0
    for epoch in range(1, epochs + 1):
        assert progress.order.begin_epoch()
        progress.trained = 0
        for step in range(num_steps):
            assert (progress.epoch, progress.global_step, progress.steps_left) == (epoch, done, num_steps - step)
            assert not progress.at_epoch_end
            assert progress.mixing_finished == (epoch > mixed)
            progress.trained, done = progress.trained + 1, done + 1
        progress.order.skip_epoch()
        assert (progress.global_step, progress.at_epoch_end, progress.steps_left) == (done, True, num_steps)
        assert progress.mixing_finished == (epoch >= mixed)
        assert progress.finished == (epoch == epochs)


def test_an_epoch_that_is_given_up_counts_as_whole():
    progress = progress_of(num_steps=3, epochs=2, mixed_epochs=1)
    progress.order.begin_epoch()
    progress.trained = 1
    progress.order.skip_epoch()
    progress.trained = 3
    assert (progress.global_step, progress.mixing_finished, progress.finished) == (3, True, False)
