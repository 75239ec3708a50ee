"""Where episodes begin and end, in both forms, and what a state taken within one continues with."""

import copy

import numpy as np
import pytest
import torch
from forms import FORMS, actions_of, assert_equal, same_weights, single, vector, weights

from rlmix.envs.process import MixingProcess
from rlmix.training.trainer import Training


def test_an_epoch_ends_truncated_and_the_budget_terminated(small):
    env = single(small)
    env.reset(seed=0)
    ends = []
    for step, action in enumerate(actions_of(small, 6)):
        *_, terminated, truncated, info = env.step(action)
        ends.append((terminated, truncated))
        assert info["step"] == step + 1
        if truncated:
            before = weights(env)
            _, info = env.reset()
            assert info["epoch"] == 2
            assert same_weights(before, weights(env))
    assert ends == [(False, False), (False, False), (False, True), (False, False), (False, False), (True, False)]
    trained = weights(env)
    _, info = env.reset()
    assert info["epoch"] == 1
    assert not same_weights(trained, weights(env))
    seed = env.process.config.run.seed
    assert seed != small.run.seed
    assert same_weights(weights(env), Training(small.changed(seed=seed)).model.state_dict())


def test_vector_form_starts_a_new_classifier_when_the_budget_is_used_up(small):
    env = vector(small)
    env.reset(seed=0)
    for action in actions_of(small, 6):
        _, _, terminations, truncations, _ = env.step(action)
    assert terminations.all()
    assert not truncations.any()
    assert env.process.training.epoch == 1
    fresh = Training(env.process.config).model.state_dict()
    assert same_weights(weights(env), fresh)


@FORMS
@pytest.mark.parametrize("steps", [1, 2])
def test_reset_in_mid_epoch_goes_on_with_the_next_epoch(small, make, steps):
    env = make(small)
    env.reset(seed=0)
    for action in actions_of(small, steps):
        env.step(action)
    before = weights(env)
    env.reset()
    training = env.process.training
    assert (training.epoch, training.order.batch) == (2, 1)
    assert same_weights(before, weights(env))
    *_, last = [env.step(action) for action in actions_of(small, 3)]
    assert np.all(last[2])  # terminated: the given-up epoch counts


@pytest.mark.parametrize("steps", [1, 2])
def test_reset_in_mid_epoch_moves_the_schedule_past_the_epoch(small, steps):
    whole, broken = single(small), single(small)
    whole.reset(seed=0)
    for action in actions_of(small, 3):
        whole.step(action)
    expected = whole.process.training.learning_rate
    broken.reset(seed=0)
    for action in actions_of(small, steps):
        broken.step(action)
    broken.reset()
    assert broken.process.training.learning_rate == pytest.approx(expected)


def test_reset_at_the_start_of_an_epoch_changes_nothing(small):
    env = single(small)
    first, _ = env.reset(seed=0)
    assert_equal(first, env.reset()[0])
    assert env.process.training.epoch == 1


def test_reset_in_the_middle_of_the_last_epoch_starts_a_new_classifier(small):
    env = single(small.changed(epochs=1))
    env.reset(seed=0)
    env.step(actions_of(small, 1)[0])
    trained = weights(env)
    env.reset()
    assert env.process.training.epoch == 1
    assert not same_weights(trained, weights(env))


@FORMS
def test_epochs_of_one_step_end_as_longer_ones_do(small, make):
    env = make(small.changed(batch_size=12, epochs=3))
    env.reset(seed=0)
    ends = []
    for _ in range(3):
        *_, terminated, truncated, _ = env.step(np.zeros(12, int))
        ends.append((bool(np.all(terminated)), bool(np.all(truncated))))
        if make is single and truncated:
            env.reset()
    assert ends == [(False, True), (False, True), (True, False)]


def test_reset_of_the_process_in_mid_epoch_begins_an_epoch(small):
    """Also where no batch waits: the environments never ask for that, a policy in a loop of its own does."""
    process = MixingProcess(small)
    process.reset()
    process.act(torch.zeros(4))
    process.reset()
    process.observe()
    assert (process.training.epoch, process.training.order.batch) == (2, 1)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_state_taken_while_a_batch_waits_continues_with_that_batch(small, steps):
    """The batch itself is not saved: it is drawn again, with the same partners and lam."""
    draw = np.random.default_rng(0)
    process = MixingProcess(small)
    num_steps = process.reset().num_steps
    choices = torch.from_numpy(draw.random((num_steps, process.config.recipe.batch_size), dtype=np.float32) * 0.9)
    for top_k in choices[:steps]:
        process.act(top_k)
    waiting = process.observe()
    state = copy.deepcopy(process.state_dict())
    other = MixingProcess(small.changed(seed=5))
    other.reset()
    other.load_state_dict(state)
    other.reset()  # as an environment does when it is used for the first time
    again = other.observe()
    assert torch.equal(waiting.batch.images, again.batch.images)
    assert torch.equal(waiting.saliency.map, again.saliency.map)
    assert torch.equal(waiting.pairing.partner, again.pairing.partner)
    assert (waiting.pairing.lam, waiting.pairing.num_patches) == (again.pairing.lam, again.pairing.num_patches)
    for top_k in choices[steps:]:
        assert torch.equal(process.act(top_k), other.act(top_k))
    assert process.epoch_metrics() == other.epoch_metrics()


@FORMS
def test_reset_after_loading_a_finished_training_begins_the_next_classifier(small, make):
    """As it does without a load: the same one, of the seed that follows."""
    process = MixingProcess(small)
    process.reset()
    for _ in range(6):
        process.act(torch.zeros(4))
    env = make(small)
    env.process.reset()
    env.process.load_state_dict(process.state_dict())
    finished = weights(env)
    _, infos = env.reset()
    assert np.all(infos["epoch"] == 1)
    assert not same_weights(finished, weights(env))
    process.reset()
    assert same_weights(process.training.model.state_dict(), weights(env))
    env.step(np.zeros(4, int))
