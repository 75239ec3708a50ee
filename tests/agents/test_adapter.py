"""The rest of Stable-Baselines3's interface on the vector form, and pictures where nobody asked for any."""

import gymnasium
import numpy as np
import pytest
from toys import toy_config

from rlmix.agents.algorithms import build_agent
from rlmix.agents.sb3.vec_env import SlotVecEnv
from rlmix.envs.env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return toy_config(tmp_path_factory.mktemp("adapter"), 8, num_train=12, num_classes=3, batch_size=4)


def test_attributes_and_methods_are_those_of_the_form_that_all_slots_share(config):
    form = RLMixVectorEnv(config=config)
    env = SlotVecEnv(form)
    assert env.get_attr("process") == [form.process] * 4
    assert env.get_attr("num_envs", [0, 2]) == [4, 4]
    env.set_attr("name", "slots")
    assert form.name == "slots"
    assert env.env_method("reset", seed=3)[0][1]["epoch"].tolist() == [1] * 4
    assert form.process.config.run.seed == 3
    form.add = lambda first, *, second: first - second
    assert env.env_method("add", 5, second=2) == [3] * 4
    assert env.env_method("add", 5, second=2, indices=[0, 2]) == [3, 3]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 4
    assert env.env_is_wrapped(gymnasium.Wrapper, [1]) == [False]
    assert env.seed(9) == [9] * 4
    env.close()


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "dqn"])
def test_a_form_that_does_not_reset_in_the_same_step_is_refused(config, algorithm, mode):
    env = RLMixVectorEnv(config=config, autoreset_mode=mode)
    with pytest.raises(ValueError, match=f"autoreset_mode must be SameStep where .* learns, got {mode}"):
        build_agent(algorithm, env, PPOConfig(), seed=0)


def test_pictures_are_given_where_they_were_asked_for(config):
    for form in (RLMixVectorEnv(config=config), RLMixEnv(config)):
        form.reset()
        assert form.render() is None
    plain, drawn = (SlotVecEnv(RLMixVectorEnv(config=config, render_mode=mode)) for mode in (None, "rgb_array"))
    for env in (plain, drawn):
        env.reset()
    assert plain.get_images() == [None] * 4
    pictures = drawn.get_images()
    assert [picture.dtype for picture in pictures] == [np.uint8] * 4
    assert len({picture.tobytes() for picture in pictures}) == 4, "a slot's picture is its own image's"
