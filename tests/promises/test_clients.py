"""Environments in somebody else's program: their torch settings, unseeded resets, threads, copies."""

import contextlib
import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
import torch
import torchvision
from toys import toy_config

import rlmix
from rlmix.agents.sb3.vec_env import SlotVecEnv
from rlmix.common.seeding import derive
from rlmix.envs.env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.models import MODELS, build_model

FORMS = {
    "single": lambda config: RLMixEnv(config, render_mode="rgb_array"),
    "vector": lambda config: RLMixVectorEnv(config=config),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of two steps of eight 8x8 images, every part of the observation shown."""
    folder = tmp_path_factory.mktemp("clients")
    return toy_config(folder, 8, num_train=16, num_classes=4, batch_size=8, observation="pair", credit="pair")


def walk(env, steps, first=None, seed=0):
    """Observations, rewards and, at last, parameters of so many steps of drawn actions, over the ends of epochs."""
    actions = np.random.default_rng(seed)
    seen = [] if first is None else [env.reset(seed=first)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(actions.integers(10, size=8))
        seen += [observation, np.asarray(reward)]
        if isinstance(env, RLMixEnv) and (terminated or truncated):
            seen.append(env.reset()[0])
    return seen, [parameter.detach().clone() for parameter in env.process.training.model.parameters()]


def assert_same(first, second):
    for one, other in zip(first[0], second[0], strict=True):
        parts = one.items() if isinstance(one, dict) else [("reward", one)]
        for name, value in parts:
            np.testing.assert_array_equal(value, other[name] if isinstance(other, dict) else other, err_msg=name)
            assert np.asarray(value).dtype == np.asarray(other[name] if isinstance(other, dict) else other).dtype
    for one, other in zip(first[1], second[1], strict=True):
        assert torch.equal(one, other)
        assert one.dtype == torch.float32


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_clients_settings_change_nothing(config, setting, form, precision):
    config = config.changed(precision=precision)
    plain = walk(FORMS[form](config), 5, first=3)
    with SETTINGS[setting]():
        env = FORMS[form](config)
        inside = walk(env, 5, first=3)
        env.render()
    assert_same(plain, inside)


def test_the_clients_own_settings_are_as_they_were(config):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), default_dtype(torch.float64):
        env = RLMixEnv(config)
        env.reset(seed=0)
        env.step(np.zeros(8, int))
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_cache_enabled()
        assert torch.get_default_dtype() == torch.float64


def test_a_step_can_be_taken_outside_after_a_reset_inside(config):
    env, plain = RLMixEnv(config), RLMixEnv(config)
    with torch.inference_mode():
        env.reset(seed=1)
        env.step(np.zeros(8, int))
    plain.reset(seed=1)
    plain.step(np.zeros(8, int))
    assert_same(walk(env, 3), walk(plain, 3))


def test_r_mix_mixes_under_inference_mode():
    model, images, labels = build_model("preactresnet18_w16", 4), torch.randn(4, 3, 16, 16), torch.arange(4)
    expected = rlmix.saliency(model, images, labels).map
    with torch.inference_mode():
        assert torch.equal(rlmix.saliency(model, images.clone(), labels.clone()).map, expected)
        mixed = rlmix.RMix()(model, images.clone(), labels.clone(), num_classes=4)
    assert mixed.images.shape == images.shape


@pytest.mark.parametrize("form", FORMS)
def test_environments_that_nobody_seeds_differ(config, form):
    first, second, named, again = (FORMS[form](each) for each in (config, config, config.changed(seed=5), config.changed(seed=5)))
    logits = [env.reset()[0]["logits"] for env in (first, second, named, again)]
    assert not np.array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[2], logits[3])
    np.testing.assert_array_equal(first.reset(seed=2)[0]["logits"], second.reset(seed=2)[0]["logits"])
    state = first.process.training.model.state_dict()
    first.reset()  # the same classifier's next epoch
    assert first.process.training.model.state_dict().keys() == state.keys()
    assert first.process.training.epoch == 1 or first.process.training.epoch == 2


def test_made_environments_that_nobody_seeds_differ(config):
    logits = [gymnasium.make("rlmix/RLMix-v0", config=config).reset()[0]["logits"] for _ in range(2)]
    assert not np.array_equal(*logits)


def test_networks_built_in_threads_are_those_of_their_seeds():
    expected = {seed: next(build_model("preactresnet18_w16", 10, seed=seed).parameters()).clone() for seed in range(4)}
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda seed: (seed, build_model("preactresnet18_w16", 10, seed=seed)), [0, 1, 2, 3] * 12))
    for seed, model in built:
        assert torch.equal(next(model.parameters()), expected[seed])


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [None, 0, 1, 2, 3, 4])
def test_a_copy_goes_on_as_the_original_does(config, form, steps, how):
    """Before the first reset, with a batch that waits, between epochs, and after the last of four steps."""
    env = FORMS[form](config)
    if steps is not None:
        walk(env, steps, first=4)
    twin = COPIES[how](env)
    assert twin.process is not env.process
    assert twin.observation_space == env.observation_space
    if steps is None:
        assert_same(walk(env, 5, first=1), walk(twin, 5, first=1))
        return
    if env.process.outcome is not None:
        np.testing.assert_array_equal(np.asarray(env.process.outcome.mask), np.asarray(twin.process.outcome.mask))
    before = [parameter.detach().clone() for parameter in env.process.training.model.parameters()]
    copied = walk(twin, 5, seed=1)
    for parameter, value in zip(env.process.training.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)  # the copy shares nothing with the original
    assert_same(walk(env, 5, seed=1), copied)


def test_a_copy_of_a_made_environment_resets_to_the_same(config):
    env = gymnasium.make("rlmix/RLMix-v0", config=config)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    twin = copy.deepcopy(env)
    np.testing.assert_array_equal(env.reset()[0]["logits"], twin.reset()[0]["logits"])  # what is left of the epoch is given up


def test_a_method_of_slots_has_a_result_for_each_index(config):
    env = SlotVecEnv(RLMixVectorEnv(config=config, render_mode="rgb_array"))
    env.reset()
    assert len(env.env_method("render", indices=[0, 1, 2])) == 3
    assert len(env.env_method("render", indices=5)) == 1
    assert len(env.env_method("render")) == env.num_envs == 8
    assert env.get_attr("num_envs", [1, 7]) == [8, 8]
    env.set_attr("mark", 3, 2)
    assert env.get_attr("mark", 2) == [3]
    assert env.env_is_wrapped(object, [0, 1]) == [False, False]
    for asked in (
        lambda: env.env_method("render", indices=[0, 8]),
        lambda: env.get_attr("num_envs", -1),
        lambda: env.set_attr("mark", 1, 8),
    ):
        with pytest.raises(IndexError, match=r"indices must be in \[0, 8\), got (8|-1)"):
            asked()


@pytest.mark.parametrize("form", [RLMixEnv, RLMixVectorEnv])
def test_a_seed_that_the_configuration_names_is_kept_zero_too(config, form):
    for seed in (0, 3):
        first, second = (form(config=config.changed(seed=seed)) for _ in range(2))
        ours, theirs = first.reset()[0], second.reset()[0]
        assert np.array_equal(ours["logits"], theirs["logits"])
        assert first.process.config.run.seed == seed
    assert np.array_equal(
        form(config=config.changed(seed=0)).reset()[0]["logits"], form(config=config).reset(seed=0)[0]["logits"]
    )


def test_a_network_built_beside_a_thread_that_draws_is_that_of_its_seed():
    alone, stop = build_model("preactresnet18_w16", 10, seed=1).state_dict(), threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(10)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        built = [build_model("preactresnet18_w16", 10, seed=1).state_dict() for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert all(torch.equal(state[name], value) for state in built for name, value in alone.items())


@pytest.mark.parametrize("name", ["preactresnet18_w16", "resnet18", "googlenet", "swin_t"])
def test_initial_weights_are_those_of_a_global_generator_seeded_alike(name):
    """What every run before drew, to the bit; and the global generator is not touched."""
    in_use = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = build_model(name, 7, seed=4).state_dict()
        assert torch.equal(torch.get_rng_state(), in_use)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(4, "init"))
            if name in MODELS:
                expected = MODELS[name](num_classes=7, in_channels=3).state_dict()
            else:
                options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
                expected = torchvision.models.get_model(name, weights=None, num_classes=7, **options).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
