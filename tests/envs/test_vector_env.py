"""The vector form as Gymnasium's clients use it: modes of autoreset, infos, number of slots, wrappers and videos."""

import sys
import types

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers
from toys import toy_config

import rlmix
from rlmix.envs.vector_env import RLMixVectorEnv

ENV = "rlmix.envs:rlmix/RLMix-v0"
SLOTS, STEPS = 4, 3
ENDS = (2, 5)
"""Of two epochs of three steps, the last steps, counted from 0."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images of three classes; the batch size is not named."""
    return toy_config(tmp_path_factory.mktemp("small"), 8, num_train=12, num_classes=3, batch_size=None)


def make(config, num_envs=SLOTS, **options):
    return gymnasium.make_vec(ENV, num_envs=num_envs, config=config, **options)


def actions(steps=6):
    return np.random.default_rng(0).integers(10, size=(steps, SLOTS))


def rollout(env, choices):
    """What the environment gives, step by step."""
    return [env.step(choice) for choice in choices]


def assert_same(first, second):
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], strict=True)


# -- modes of autoreset


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_each_mode_is_in_the_metadata_of_its_own_environment(small, mode):
    assert make(small, autoreset_mode=mode).metadata["autoreset_mode"] is mode
    assert make(small, autoreset_mode=mode.value).metadata["autoreset_mode"] is mode
    assert rlmix.make_vec_env(small, SLOTS, autoreset_mode=mode).metadata["autoreset_mode"] is mode
    assert RLMixVectorEnv.metadata["autoreset_mode"] is make(small).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_an_unknown_mode_is_refused(small):
    with pytest.raises(ValueError, match="autoreset_mode must be one of NextStep, SameStep, Disabled, got 'never'"):
        make(small, autoreset_mode="never")


def test_the_next_step_resets_and_reads_no_action(small):
    env, same = make(small, autoreset_mode=AutoresetMode.NEXT_STEP), make(small)
    env.reset(seed=0)
    same.reset(seed=0)
    for step, choice in enumerate(actions()):
        observation, rewards, terminations, truncations, infos = env.step(choice)
        expected, expected_rewards, _, _, others = same.step(choice)
        np.testing.assert_array_equal(rewards, expected_rewards)
        assert truncations.tolist() == [step == 2] * SLOTS
        assert terminations.tolist() == [step == 5] * SLOTS
        assert "final_obs" not in infos
        if step not in ENDS:
            assert_same(observation, expected)
            continue
        assert_same(observation, others["final_obs"])
        assert infos["step"].tolist() == [step + 1] * SLOTS
        observation, rewards, terminations, truncations, infos = env.step(np.full(SLOTS, -1))
        assert_same(observation, expected)
        assert rewards.tolist() == [0.0] * SLOTS
        assert not (terminations | truncations).any()
        assert infos["epoch"].tolist() == [2 if step == 2 else 1] * SLOTS
        assert "loss" not in infos


def test_a_reset_by_hand_takes_the_place_of_the_next_steps(small):
    env, same = make(small, autoreset_mode=AutoresetMode.NEXT_STEP), make(small)
    env.reset(seed=0)
    same.reset(seed=0)
    rollout(env, actions(3))
    assert_same(env.reset()[0], rollout(same, actions(3))[-1][0])
    assert env.step(actions(1)[0])[4]["step"].tolist() == [4] * SLOTS


@pytest.mark.parametrize("options", [None, {"reset_mask": np.ones(SLOTS, bool)}])
def test_nothing_resets_by_itself_where_that_is_disabled(small, options):
    env, same = make(small, autoreset_mode=AutoresetMode.DISABLED), make(small)
    env.reset(seed=0)
    same.reset(seed=0)
    for step, choice in enumerate(actions()):
        observation, rewards, terminations, truncations, _ = env.step(choice)
        expected, expected_rewards, _, _, infos = same.step(choice)
        np.testing.assert_array_equal(rewards, expected_rewards)
        if step in ENDS:
            assert (terminations | truncations).all()
            assert_same(observation, infos["final_obs"])
            with pytest.raises(RuntimeError, match=r"reset\(\) must be called after the end of an episode"):
                env.step(choice)
            observation, _ = env.reset(options=options)
        assert_same(observation, expected)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.array([True, False, True, True]), ValueError, "must name all slots, .* got 3 of 4"),
        (np.zeros(SLOTS, bool), ValueError, "must name all slots, .* got 0 of 4"),
        (np.ones(3, bool), ValueError, r"must have shape \(4,\), got \(3,\)"),
        (np.ones(SLOTS, int), TypeError, "must be a numpy array of bool, got int64"),
        ([True] * SLOTS, TypeError, "must be a numpy array of bool, got list"),
    ],
)
def test_a_reset_mask_of_some_slots_or_of_another_form_is_refused(small, mask, error, message):
    env = make(small, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    with pytest.raises(error, match=f"reset_mask {message}"):
        env.reset(options={"reset_mask": mask})


def test_the_same_step_gives_the_last_observation_and_infos_of_what_is_over(small):
    env, disabled = make(small), make(small, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    disabled.reset(seed=0)
    *_, infos = rollout(env, actions(3))[-1]
    last, _, _, _, last_infos = rollout(disabled, actions(3))[-1]
    assert_same(infos["final_obs"], last)
    for slot in range(SLOTS):
        assert_same(infos["final_obs"][slot], {name: values[slot] for name, values in last.items()})
    with pytest.raises(KeyError, match="noise"):
        infos["final_obs"]["noise"]
    assert infos["final_info"].keys() == last_infos.keys()
    assert_same(infos["final_info"], last_infos)
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True] * SLOTS
    assert (infos["epoch"].tolist(), infos["step"].tolist()) == ([2] * SLOTS, [3] * SLOTS)
    assert infos["final_info"]["epoch"].tolist() == [1] * SLOTS


# -- infos


def test_loss_and_top1_are_those_of_the_step(small):
    """Computed from the mixed batch itself, by the classifier as it is before its step."""
    env = make(small)
    _, infos = env.reset(seed=0)
    assert {name: values.tolist() for name, values in infos.items()} == {
        "epoch": [1] * 4, "step": [0] * 4, "learning_rate": [env.process.training.learning_rate] * 4,
        "_epoch": [True] * 4, "_step": [True] * 4, "_learning_rate": [True] * 4,
    }  # fmt: skip
    for step, choice in enumerate(actions(5)):
        weights = {name: tensor.clone() for name, tensor in env.process.training.model.state_dict().items()}
        *_, infos = env.step(choice)
        infos = infos.get("final_info", infos)
        mixed, model = env.process.outcome.mixed, env.process.training.model
        after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(weights)
        with torch.no_grad():
            logits = model.train()(mixed.images)
        model.load_state_dict(after)
        loss = -(F.log_softmax(logits, 1) * mixed.targets).sum(1).mean()
        right = (logits.argmax(1) == mixed.targets.argmax(1)).double().mean()
        np.testing.assert_allclose(infos["loss"], [float(loss)] * SLOTS, rtol=1e-5)
        assert infos["top1"].tolist() == [100 * float(right)] * SLOTS
        assert infos["step"].tolist() == [step + 1] * SLOTS


def test_infos_become_a_list_of_each_slots(small):
    env = wrappers.DictInfoToList(make(small))
    env.reset(seed=0)
    observation, *_, infos = rollout(env, actions(3))[-1]
    assert len(infos) == SLOTS
    assert infos[1].keys() == {"epoch", "step", "learning_rate", "final_obs", "final_info"}
    assert infos[1]["final_obs"]["logits"].shape == (3,)
    assert infos[1]["final_info"]["step"] == 3
    assert observation["logits"].shape == (SLOTS, 3)


# -- number of slots


def test_the_number_of_slots_is_the_batch_size(small):
    env = make(small, num_envs=6)
    env.reset(seed=0)
    assert env.num_envs == len(env.process.observe().batch.labels) == 6
    assert env.process.training.steps_per_epoch == 2
    assert make(small.changed(batch_size=6), num_envs=6).num_envs == 6
    assert rlmix.make_vec_env(small.changed(batch_size=6)).num_envs == 6


def test_slots_beside_another_batch_size_are_refused(small):
    with pytest.raises(ValueError, match="num_envs must be the batch size 5, or batch_size be left out, got 4"):
        make(small.changed(batch_size=5))


def test_a_single_slot_is_refused_for_it_has_no_partner(small):
    with pytest.raises(ValueError, match="num_envs must be at least 2, for images are mixed in pairs, got 1"):
        gymnasium.make_vec(ENV, config=small)


# -- wrappers


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_flattened_observations_are_those_of_every_part(small, mode):
    env, plain = wrappers.FlattenObservation(make(small, autoreset_mode=mode)), make(small)
    assert env.observation_space.shape == (SLOTS, 64 + 3)
    flat, observation = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    for choice in actions(2):
        # a Dict space is flattened in the order of its keys
        np.testing.assert_array_equal(flat, np.concatenate([observation["logits"], observation["saliency"].reshape(4, 64)], 1))
        assert flat in env.observation_space
        flat, observation = env.step(choice)[0], plain.step(choice)[0]


def test_filtered_observations_can_be_rescaled(small):
    env = make(small, autoreset_mode=AutoresetMode.NEXT_STEP)
    env = wrappers.RescaleObservation(
        wrappers.FlattenObservation(wrappers.FilterObservation(env, ["saliency"])), np.float32(-1), np.float32(3)
    )
    plain = make(small)
    observation = plain.reset(seed=0)[0]
    np.testing.assert_allclose(env.reset(seed=0)[0], 4 * observation["saliency"].reshape(4, 64) - 1, atol=1e-6)
    np.testing.assert_allclose(
        env.step(actions()[0])[0], 4 * plain.step(actions()[0])[0]["saliency"].reshape(4, 64) - 1, atol=1e-6
    )


def test_normalized_observations_have_mean_0_and_deviation_1(small):
    env = make(small, num_envs=12, autoreset_mode=AutoresetMode.NEXT_STEP)
    env = wrappers.NormalizeObservation(wrappers.FlattenObservation(env))
    normal, plain = env.reset(seed=0)[0], make(small, num_envs=12).reset(seed=0)[0]
    logits = plain["logits"].astype(float)
    expected = (logits - logits.mean(0)) / logits.std(0)
    np.testing.assert_allclose(
        normal[:, :3], expected, atol=1e-2
    )  # its running mean begins with a ten-thousandth of an observation


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_statistics_are_of_the_episodes(small, mode):
    if mode is AutoresetMode.SAME_STEP and gymnasium.__version__ < "1.3":
        pytest.skip("Gymnasium 1.2 leaves a step of the second episode out")
    env = wrappers.RecordEpisodeStatistics(make(small, autoreset_mode=mode))
    env.reset(seed=0)
    earned = np.zeros((2, SLOTS))
    for step, choice in enumerate(actions()):
        _, rewards, terminations, truncations, infos = env.step(choice)
        earned[step // STEPS] += rewards
        if (terminations | truncations).all():
            np.testing.assert_allclose(infos["episode"]["r"], earned[step // STEPS], rtol=1e-6)
            assert infos["episode"]["l"].tolist() == [STEPS] * SLOTS
            if mode is AutoresetMode.NEXT_STEP:
                env.step(choice)
            if mode is AutoresetMode.DISABLED:
                env.reset(options={"reset_mask": terminations | truncations})
    assert env.episode_count == 2 * SLOTS


def test_a_video_has_a_frame_a_step_of_every_slot(small, monkeypatch, tmp_path):
    clips = {}

    class Clip:
        def __init__(self, frames, fps):
            self.frames, self.fps = frames, fps

        def write_videofile(self, path, logger=None):
            clips[path.rsplit("-", 1)[1]] = self

    names = ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[names[-1]].ImageSequenceClip = Clip
    env = make(small, autoreset_mode=AutoresetMode.NEXT_STEP, render_mode="rgb_array")
    video = wrappers.RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    video.reset(seed=0)
    pictures = [env.render()]
    for choice in actions(3):
        video.step(choice)
        pictures.append(env.render())
    video.close()
    assert list(clips) == ["0.mp4"]
    assert clips["0.mp4"].fps == 4
    assert len(clips["0.mp4"].frames) == 4
    for frame, picture in zip(clips["0.mp4"].frames, pictures, strict=True):
        assert len(picture) == SLOTS
        assert picture[0].shape == (4 * (2 * 8 + 2), 2 * 8 + 2, 3)  # four rows of 8 pixels, doubled, and a gap
        rows, columns = video.frame_rows, video.frame_cols
        assert rows * columns == SLOTS
        expected = np.concatenate([np.concatenate(picture[row * columns : (row + 1) * columns], 1) for row in range(rows)], 0)
        np.testing.assert_array_equal(frame, expected)
