"""What the forms take as an action, and what they refuse."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from forms import ENV, FORMS, actions_of, assert_equal, single
from toys import toy_config

from rlmix.data.registry import load_data

WRONG_ACTIONS = [
    (np.zeros(3, int), r"shape \(4,\), got \(3,\)"),
    (np.zeros((1, 4), int), r"shape \(4,\), got \(1, 4\)"),
    (0, r"shape \(4,\), got \(\)"),
    (np.zeros(4), r"integers, got float64"),
    (np.zeros(4, bool), r"integers, got bool"),
    (np.array([0, 1, 2, 10]), r"\{0, \.\.\., 9\}, got 0 to 10"),
    (np.array([-1, 1, 2, 3]), r"\{0, \.\.\., 9\}, got -1 to 3"),
]
WRONG_QUANTILES = [
    (np.zeros(5, np.float32), r"shape \(4,\), got \(5,\)"),
    (np.array([0, 0.5, 0.98, 1.0]), r"\[0, 0\.99\], got 0\.0 to 1\.0"),
    (np.array([-0.25, 0, 0, 0]), r"\[0, 0\.99\], got -0\.25 to 0\.0"),
    (np.array([float("nan"), 0, 0, 0]), r"\[0, 0\.99\], got nan"),
]


@FORMS
@pytest.mark.parametrize(("action", "message"), WRONG_ACTIONS)
def test_wrong_action_is_refused_and_names_the_value(small, make, action, message):
    env = make(small)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"action must .*{message}"):
        env.step(action)
    assert env.process.training.order.batch == 1  # nothing happened: the batch still waits
    env.step(np.zeros(4, int))


@FORMS
@pytest.mark.parametrize(("action", "message"), WRONG_QUANTILES)
def test_wrong_quantile_is_refused_and_names_the_value(small, make, action, message):
    env = make(small, continuous=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"action must .*{message}"):
        env.step(action)


def test_another_number_of_slots_than_the_batch_is_refused(small):
    with pytest.raises(ValueError, match="num_envs must be the batch size 4, or batch_size be left out, got 5"):
        gymnasium.make_vec(ENV, num_envs=5, vectorization_mode="vector_entry_point", config=small)


@FORMS
@pytest.mark.parametrize(("option", "near"), [("reward", "cosine"), ("credit", "pair"), ("rule", "mix_top")])
def test_unknown_names_are_refused_with_the_nearest(small, make, option, near):
    with pytest.raises(ValueError, match=rf"{option} must be one of .*{near}.*, got '{near}x' \(did you mean '{near}'\?\)"):
        make(small.changed(**{option: near + "x"}))


def test_images_smaller_than_the_agents_map_are_refused(tmp_path):
    config = toy_config(tmp_path, 8)
    data = load_data(config)
    small = replace(data, train_images=data.train_images[:, :7, :7], test_images=data.test_images[:, :7, :7])
    with pytest.raises(ValueError, match="images must have at least 8 pixels a side, as the agent's map has, got 7x7"):
        single(config, data=small)


def test_more_patches_than_pixels_are_refused(small):
    with pytest.raises(ValueError, match=r"num_patches must be in \[1, 8\] where images have 8x8 pixels, got 9"):
        single(small.changed(num_patches=(2, 9)))


@FORMS
def test_continuous_form_takes_the_quantiles_themselves(small, make):
    discrete, continuous = make(small), make(small, continuous=True)
    assert_equal(discrete.reset(seed=0)[0], continuous.reset(seed=0)[0])
    for action in actions_of(small, 3):
        ours = discrete.step(action)
        theirs = continuous.step(np.linspace(0, 0.99, 10, dtype=np.float32)[action])
        assert_equal(ours[0], theirs[0])
        assert_equal(np.asarray(ours[1]), np.asarray(theirs[1]))
    continuous.step(continuous.action_space.high)
    assert continuous.action_space.sample() in continuous.action_space


def test_an_action_is_the_quantile_its_index_names(small):
    env = single(small.changed(num_patches=(8,)))
    env.reset(seed=0)
    env.step(np.array([0, 3, 9, 9]))
    outcome = env.process.outcome
    np.testing.assert_allclose(outcome.top_k, [0, 0.33, 0.99, 0.99], rtol=1e-6)
    salient = outcome.mask.sum((1, 2)).tolist()
    assert salient[0] == 64
    assert salient[1] == 64 - 21  # the 33 % quantile of 64 lies between the 21st and the 22nd
    assert salient[2:] == [1, 1]
