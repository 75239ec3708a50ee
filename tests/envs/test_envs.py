"""The environments: both forms' interface, episodes, reproducibility, and rewards against independent computations."""

import copy
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from toys import toy_config

from rlmix.agents.features import BatchFeatures
from rlmix.data.registry import load_data
from rlmix.envs.credit import share_credit
from rlmix.envs.observations import observation_space
from rlmix.envs.process import MixingProcess
from rlmix.training.trainer import Training

ENV = "rlmix.envs:rlmix/RLMix-v0"
BATCH, CLASSES = 16, 10


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of four steps of 16 toy images, 16x16 pixels."""
    return toy_config(tmp_path_factory.mktemp("toy"), 16)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images of three classes: milliseconds."""
    return toy_config(tmp_path_factory.mktemp("small"), 8, num_train=12, num_classes=3, batch_size=4)


def single(config, **options):
    return gymnasium.make(ENV, config=config, **options).unwrapped


def vector(config, **options):
    num_envs = config.optim.batch_size
    return gymnasium.make_vec(ENV, num_envs=num_envs, vectorization_mode="vector_entry_point", config=config, **options)


FORMS = pytest.mark.parametrize("make", [single, vector])


def actions_of(config, steps, seed=0):
    return np.random.default_rng(seed).integers(config.mixing.num_top_k, size=(steps, config.optim.batch_size))


def assert_equal(first, second):
    """Bit for bit, through dictionaries."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    else:
        np.testing.assert_array_equal(first, second, strict=True)


def weights(env):
    return copy.deepcopy(env.process.training.model.state_dict())


def same_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# -- the interface


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


# -- episodes


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


# -- what is refused

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


# -- actions and rewards


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


def pooled_by_hand(map):
    """8x8 block means of one map, summing to 1, in float64."""
    side = map.shape[0] // 8
    blocks = np.array(
        [[map[y : y + side, x : x + side].mean() for x in range(0, 8 * side, side)] for y in range(0, 8 * side, side)]
    )
    return blocks / blocks.sum()


def gradient_map_by_hand(model, images, targets):
    inputs = images.clone().requires_grad_()
    loss = -(targets * model(inputs).log_softmax(1)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, inputs)
    return np.sqrt((gradient.double().numpy() ** 2).mean(1))


@pytest.mark.parametrize("reward", ["cosine", "cosine_full", "cosine_batch"])
def test_rewards_equal_a_loop_over_independent_gradients(config, reward):
    env = vector(config.changed(reward=reward))
    env.reset(seed=0)
    env.step(actions_of(config, 1)[0])
    decision = env.process.observe()
    model = copy.deepcopy(env.process.training.model)  # before the step
    clean = gradient_map_by_hand(copy.deepcopy(model), decision.batch.images, F.one_hot(decision.batch.labels, CLASSES))
    np.testing.assert_allclose(decision.saliency.map.numpy(), clean, rtol=1e-3, atol=1e-6)
    _, rewards, *_ = env.step(actions_of(config, 2)[1])
    mixed = env.process.outcome.mixed
    after = gradient_map_by_hand(model, mixed.images, mixed.targets)
    if reward == "cosine_full":
        pairs = [(one.ravel(), other.ravel()) for one, other in zip(clean, after, strict=True)]
    else:
        pairs = [(pooled_by_hand(one).ravel(), pooled_by_hand(other).ravel()) for one, other in zip(clean, after, strict=True)]
    if reward == "cosine_batch":
        pairs = [tuple(np.concatenate(side) for side in zip(*pairs, strict=True))] * BATCH
    expected = [one @ other / np.sqrt((one @ one) * (other @ other)) for one, other in pairs]
    np.testing.assert_allclose(rewards, expected, rtol=1e-4)


def credit_by_loop(own, partner, credit):
    if credit == "own":
        return own
    if credit == "batch":
        return np.full(len(own), own.mean())
    shared = np.empty(len(own))
    for image in range(len(own)):
        (mixture,) = [index for index in range(len(own)) if partner[index] == image]  # where this image is the partner
        shared[image] = (own[image] + own[mixture]) / 2
    return shared


@pytest.mark.parametrize("credit", ["own", "pair", "batch"])
def test_credit_is_shared_as_a_loop_over_images_says(config, credit):
    own, shared = vector(config), vector(config.changed(credit=credit))
    own.reset(seed=0)
    shared.reset(seed=0)
    for action in actions_of(config, 2):
        partner = own.process.observe().pairing.partner.tolist()
        rewards, credited = own.step(action)[1], shared.step(action)[1]
        np.testing.assert_allclose(credited, credit_by_loop(rewards.astype(float), partner, credit), rtol=1e-6)
    assert own.process.epoch_metrics() == shared.process.epoch_metrics()  # what is logged is the reward before it is shared


def test_share_credit_of_known_numbers():
    rewards = torch.tensor([0.0, 1.0, 2.0, 5.0])
    partner_of = torch.tensor([4.0, 3.0, 0.0, 1.0])
    assert share_credit(rewards, partner_of, "own").tolist() == [0, 1, 2, 5]
    assert share_credit(rewards, partner_of, "pair").tolist() == [2, 2, 1, 3]
    assert share_credit(rewards, partner_of, "batch").tolist() == [2] * 4


@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_a_slots_space_is_that_of_its_observation(small, observation):
    env = vector(small.changed(observation=observation))
    assert env.single_observation_space == observation_space(observation, (), env.process.data.num_classes)
    assert ("lam" in env.single_observation_space.spaces) == (observation == "pair")


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


def test_epoch_metrics_cover_the_epochs_images(small):
    env = vector(small)
    env.reset(seed=0)
    taken = []
    env.process.on_epoch_end = lambda training: taken.append((env.process.epoch_metrics(), env.process.epoch_top_k()))
    rewards, actions = [], actions_of(small, 6)
    for action in actions:
        rewards.append(env.step(action)[1])
    assert len(taken) == 2
    for epoch, (figures, top_k) in enumerate(taken):
        mine, chosen = np.array(rewards[3 * epoch : 3 * epoch + 3]), actions[3 * epoch : 3 * epoch + 3] * 0.11
        assert figures["reward_mean"] == pytest.approx(mine.mean(), rel=1e-5)
        assert figures["reward_std"] == pytest.approx(mine.std(), rel=1e-4)
        assert figures["top_k_mean"] == pytest.approx(chosen.mean(), rel=1e-5)
        np.testing.assert_allclose(top_k, chosen.ravel(), rtol=1e-5)


def test_reset_of_the_process_in_mid_epoch_begins_an_epoch(small):
    """Also where no batch waits: the environments never ask for that, a policy in a loop of its own does."""
    process = MixingProcess(small)
    process.reset()
    process.act(torch.zeros(4))
    process.reset()
    process.observe()
    assert (process.training.epoch, process.training.order.batch) == (2, 1)
