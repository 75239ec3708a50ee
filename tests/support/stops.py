"""Runs that are stopped in the middle of a step."""

import os

from rlmix.training.trainer import Training


def stop_at(monkeypatch, step, number):
    """The process sends itself a signal in the middle of that step."""
    train_step = Training.step

    def interrupted(training, *args, **kwargs):
        if training.global_step == step - 1:
            os.kill(os.getpid(), number)
        return train_step(training, *args, **kwargs)

    monkeypatch.setattr(Training, "step", interrupted)
