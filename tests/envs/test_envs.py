"""The environments' interface in both forms, and that the same seed and actions give the same bits."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from forms import FORMS, actions_of, assert_equal, same_weights, single, vector, weights
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from rlmix.agents.features import BatchFeatures
from rlmix.envs.observations import observation_space

BATCH, CLASSES = 16, 10


def test_gymnasium_checks_the_single_form_without_a_warning(tiny_config):
    env = single(tiny_config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


@pytest.mark.parametrize("continuous", [False, True])
def test_gymnasium_checks_small_and_continuous_forms_without_a_warning(small, continuous):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(single(small, continuous=continuous))


def test_stable_baselines_checks_the_single_form(config):
    sb3_check_env(single(config), warn=False)


def test_stable_baselines_checks_its_features_without_a_warning(config):
    env = BatchFeatures(single(config), BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(env, warn=True)


def test_stable_baselines_checks_the_flattened_form_without_a_warning(config):
    """Maps of a whole batch have the shape of an image, which its checker takes them for."""
    env = gymnasium.wrappers.FlattenObservation(single(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(env, warn=True)


def test_single_form_has_the_spaces_of_the_design(config):
    env = single(config)
    assert env.observation_space["saliency"] == gymnasium.spaces.Box(0, 1, (BATCH, 8, 8), np.float32)
    assert env.observation_space["logits"].shape == (BATCH, CLASSES)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([10] * BATCH)
    assert single(config, continuous=True).action_space == gymnasium.spaces.Box(0, 0.99, (BATCH,), np.float32)


def test_single_form_stays_in_its_spaces_and_gives_plain_types(config):
    env = single(config)
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert info["epoch"] == 1
    for action in actions_of(config, 4):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        assert type(reward) is float
        assert 0 <= reward <= 1
        assert type(terminated) is bool
        assert type(truncated) is bool
    assert info == {"epoch": 1, "step": 4, "learning_rate": pytest.approx(env.process.training.learning_rate)}


def test_vector_form_has_the_spaces_of_the_design(config):
    env = vector(config)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.num_envs == BATCH
    assert env.single_observation_space["saliency"] == gymnasium.spaces.Box(0, 1, (8, 8), np.float32)
    assert env.single_observation_space["logits"].shape == (CLASSES,)
    assert env.single_action_space == gymnasium.spaces.Discrete(10)
    assert env.observation_space["saliency"].shape == (BATCH, 8, 8)
    assert env.action_space.shape == (BATCH,)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_vector_form_stays_in_its_spaces(config):
    env = vector(config)
    observation, _ = env.reset(seed=0)
    for step in range(8):
        assert observation in env.observation_space
        for slot in range(BATCH):
            assert {key: value[slot] for key, value in observation.items()} in env.single_observation_space
        observation, rewards, terminations, truncations, _ = env.step(env.action_space.sample())
        assert rewards.shape == terminations.shape == truncations.shape == (BATCH,)
        assert (rewards.dtype, terminations.dtype, truncations.dtype) == (np.float32, np.bool_, np.bool_)
        assert ((rewards >= 0) & (rewards <= 1 + 1e-6)).all()
        assert truncations.all() == truncations.any() == (step == 3)
        assert terminations.all() == terminations.any() == (step == 7)


@FORMS
def test_every_map_sums_to_one(config, make):
    env = make(config)
    observation, _ = env.reset(seed=0)
    for action in actions_of(config, 3):
        np.testing.assert_allclose(observation["saliency"].sum((1, 2), dtype=float), 1, rtol=1e-5)
        observation, *_ = env.step(action)


@FORMS
def test_returned_arrays_are_the_callers_own(small, make):
    kept, spoilt = make(small), make(small)
    assert_equal(kept.reset(seed=0)[0], observation := spoilt.reset(seed=0)[0])
    for action in actions_of(small, 6):
        for array in observation.values():
            array[:] = 7
        ours, theirs = kept.step(action), spoilt.step(action)
        assert_equal(ours[0], theirs[0])
        assert_equal(np.asarray(ours[1]), np.asarray(theirs[1]))
        observation = theirs[0]
        for array in theirs[1:4] if make is vector else ():
            array[:] = 1
        if "final_obs" in theirs[4]:
            assert not np.shares_memory(theirs[4]["final_obs"]["logits"], observation["logits"])
        action[:] = -1  # and the caller's action may change after the step
    assert same_weights(weights(kept), weights(spoilt))


def test_vector_form_resets_in_the_same_step_and_gives_the_last_observation(small):
    env, alone = vector(small), single(small)
    env.reset(seed=0)
    alone.reset(seed=0)
    for step, action in enumerate(actions_of(small, 6)):
        observation, _, _, _, infos = env.step(action)
        last, *_ = alone.step(action)
        if step in (2, 5):
            assert_equal(infos["final_obs"], last)
            assert infos["_final_obs"].tolist() == [True] * 4
            assert infos["_final_obs"].dtype == bool
            first, _ = alone.reset()
            assert_equal(observation, first)
        else:
            assert "final_obs" not in infos
            assert_equal(observation, last)


@FORMS
def test_rendering_gives_a_picture(config, make):
    env = make(config, render_mode="rgb_array")
    env.reset(seed=0)
    for action in actions_of(config, 2):
        picture = env.render()
        if make is vector:
            assert len(picture) == BATCH
            assert len({slot.tobytes() for slot in picture}) == BATCH
            picture = picture[0]
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert picture.std() > 0
        env.step(action)


@FORMS
def test_unknown_render_mode_is_refused(small, make):
    warnings.simplefilter("ignore")  # gymnasium warns, and asks the environment then
    with pytest.raises((ValueError, gymnasium.error.Error), match="ansi"):
        make(small, render_mode="ansi")


def test_rendering_before_the_first_reset_says_so(small):
    with pytest.raises(RuntimeError, match="reset"):
        single(small, render_mode="rgb_array").render()


@FORMS
def test_stepping_before_the_first_reset_says_so(small, make):
    with pytest.raises(RuntimeError, match="reset"):
        make(small).step(np.zeros(4, int))


# -- reproducibility


@FORMS
def test_same_seed_and_actions_give_the_same_bits(config, make):
    env, records = make(config), []
    for _ in range(2):
        observation, _ = env.reset(seed=5)
        record = [observation]
        for action in actions_of(config, 3):
            observation, reward, *_ = env.step(action)
            record += [observation, {"reward": np.asarray(reward)}]
        records.append(record)
    for first, second in zip(*records, strict=True):
        assert_equal(first, second)


def test_reset_with_the_configurations_seed_is_the_first_reset(small):
    first, second = single(small.changed(seed=3)), single(small)
    assert_equal(first.reset()[0], second.reset(seed=3)[0])
    assert not np.array_equal(second.reset(seed=4)[0]["logits"], first.reset(seed=3)[0]["logits"])


def test_both_forms_are_one_problem(config):
    alone, slots = single(config), vector(config)
    assert_equal(alone.reset(seed=1)[0], slots.reset(seed=1)[0])
    for step, action in enumerate(actions_of(config, 5)):
        observation, reward, terminated, truncated, _ = alone.step(action)
        batch, rewards, terminations, truncations, _ = slots.step(action)
        assert_equal(observation, batch)
        assert reward == pytest.approx(rewards.mean(), rel=1e-6)
        assert (terminated, truncated) == (terminations.all(), truncations.all()) == (False, step == 3)
    assert same_weights(weights(alone), weights(slots))


def test_actions_move_no_draw_so_policies_meet_the_same_chances(config):
    """Masks of 2 or 4 patches, by default, and every observation of 8x8."""
    assert config.mixing.num_patches is None
    envs = [single(config), single(config)]
    seen = [[], []]
    for env, record, action in zip(envs, seen, (0, 9), strict=True):
        for epoch in range(2):
            env.reset(seed=0 if epoch == 0 else None)
            for step in range(4):
                decision = env.process.observe()
                assert decision.patches.shape == (BATCH, 8, 8)
                record.append((decision.batch, decision.pairing))
                env.step(np.full(BATCH, action) if step % 2 else actions_of(config, 1, action)[0])
    for (batch, pairing), (other_batch, other_pairing) in zip(*seen, strict=True):
        assert torch.equal(batch.labels, other_batch.labels)
        assert torch.equal(batch.images, other_batch.images)
        assert torch.equal(pairing.partner, other_pairing.partner)
        assert (pairing.lam, pairing.num_patches) == (other_pairing.lam, other_pairing.num_patches)
    assert len({pairing.lam for _, pairing in seen[0]}) == 8
    assert {pairing.num_patches for _, pairing in seen[0]} == {2, 4}
    assert not same_weights(weights(envs[0]), weights(envs[1]))


@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_a_slots_space_is_that_of_its_observation(small, observation):
    env = vector(small.changed(observation=observation))
    assert env.single_observation_space == observation_space(observation, (), env.process.data.num_classes)
    assert ("lam" in env.single_observation_space.spaces) == (observation == "pair")
