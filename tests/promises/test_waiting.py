"""No step makes the host wait for the device but where it says so: every kind of step on a pretended CUDA device."""

import subprocess
import sys

import pytest
import torch
from pretended_cuda import DEVICE, pretended_cuda
from toys import toy_config

import rlmix
from rlmix.agents.policies import FixedRandomPolicy
from rlmix.agents.sb3.on_device import DeviceAgent
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.common.transfer import to_device
from rlmix.envs import process as process_module
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import REWARDS
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.maps.approximate import SALIENCY_MODES
from rlmix.maps.composition import move_back
from rlmix.mixing.registry import METHODS
from rlmix.option_groups import PPOConfig
from rlmix.training.trainer import Training

SMALL = {"model": "small_network:make"}
STEPS = 3
"""Of four in an epoch, whose end is looked at."""
WAITING = ("puzzlemix",)
"""Methods whose steps wait: its transport ends when no block wants another place."""
DOUBLE = ("position",)
"""Controls that compute in float64: the sum of a whole training's maps."""


@pytest.fixture
def device(monkeypatch):
    with pretended_cuda(monkeypatch) as device:
        yield device


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("toy")


def run_rmix(config, device, steps=STEPS):
    """Steps of R-Mix in the environment; what was found in them."""
    process = MixingProcess(config)
    process.reset()
    policy = FixedRandomPolicy(10, seed=0)
    device.found.clear()
    for _ in range(steps):
        process.act(policy(process.observe()))
    return process.require_training(), device.found


def kinds(found):
    return {line.partition(":")[0] for line in found}


# -- the pretended device


def test_a_pretended_device_finds_what_a_real_one_would_wait_for(device):
    there = to_device(torch.rand(4, 3), DEVICE)
    assert (there.device, (there + 1.0).sum(1).device, there.cpu().device.type) == (DEVICE, DEVICE, "cpu")
    device.found.clear()
    for call, expected in [
        (lambda: there.sum().item(), "a number is read"),
        (lambda: bool(there.isfinite().all()), "a number is read"),
        (lambda: there.cpu(), "a copy to the host"),
        (lambda: torch.empty(4, 3).copy_(there), "a copy to the host"),
        (lambda: torch.rand(2).to(DEVICE), "a copy from the host that waits"),
        (lambda: torch.rand(2).to(DEVICE, non_blocking=True), "a copy from the host that waits"),
        (lambda: torch.rand(2).pin_memory().to(DEVICE), "a copy from the host that waits"),
        (lambda: torch.tensor([1.0, 2.0], device=DEVICE), "a copy from the host that waits"),
        (lambda: there[torch.tensor([0, 1])], "index of a tensor on the host"),
        (lambda: there + torch.rand(3), "add of a tensor on the host"),
        (lambda: there.double(), "_to_copy gives float64"),
        (lambda: torch.multinomial(there, 1), "multinomial waits"),
    ]:
        call()
        assert kinds(device.found) == {expected}
        device.found.clear()
    for call, expected in [
        (lambda: there.nonzero(), "nonzero waits"),
        (lambda: there[there > 0], "index waits"),
        (lambda: torch.bincount(there[:, 0].long()), "bincount waits"),
    ]:
        with pytest.raises((NotImplementedError, RuntimeError)):
            call()
        assert kinds(device.found) == {expected}
        device.found.clear()
    there.requires_grad_().square().sum().backward()
    assert (there.grad.device, to_device(torch.rand(2), DEVICE).device, device.found) == (DEVICE, DEVICE, [])


def test_one_number_that_is_read_in_the_step_is_found(folder, device, monkeypatch):
    """What the tests below would say of it."""
    share_credit = process_module.share_credit

    def reading(rewards, partner_of, credit):
        return share_credit(rewards - rewards.mean().item(), partner_of, credit)

    monkeypatch.setattr(process_module, "share_credit", reading)
    _, found = run_rmix(toy_config(folder, 16, **SMALL), device)
    assert kinds(found) == {"a number is read"}
    assert len(found) == STEPS


# -- steps


@pytest.mark.parametrize("mode", SALIENCY_MODES)
def test_no_step_of_rmix_waits(folder, mode, device):
    training, found = run_rmix(toy_config(folder, 16, saliency_mode=mode), device)
    assert kinds(found) == ({"_to_copy gives float64", "sum gives float64"} if mode in DOUBLE else set())
    assert {parameter.device for parameter in training.model.parameters()} == {DEVICE}
    assert all(parameter.grad.device == DEVICE for parameter in training.model.parameters())


@pytest.mark.parametrize("reward", [name for name in REWARDS if not REWARDS.entry(name).traits.get("average")])
def test_no_reward_waits(folder, reward, device):
    validation = {"val_fraction": 0.2} if REWARDS.entry(reward).traits.get("validation") else {}
    config = toy_config(folder, 8, num_train=128, reward=reward, credit="pair", **validation, **SMALL)
    assert run_rmix(config, device)[1] == []


@pytest.mark.parametrize(
    "options",
    [
        {"on_nonfinite": "skip"},
        {"accumulation": 2},
        {"label_smoothing": 0.1},
        {"clip_norm": 1.0},
        {"diversity": 0.1},
        {"credit": "batch"},
        {"optimizer": "adamw", "decay_norms": False},
        {"layer_decay": 0.7},
        {"channels_last": False},
        {"num_patches": (5,)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_no_option_makes_a_step_wait(folder, options, device):
    assert run_rmix(toy_config(folder, 16, **options, **SMALL), device)[1] == []


def test_a_frozen_classifier_lies_on_the_device_and_makes_nobody_wait(folder, tmp_path, monkeypatch):
    run = toy_config(folder, 8, method="vanilla", epochs=1, out=tmp_path / "run", metrics=())
    rlmix.train(run)
    with pretended_cuda(monkeypatch) as device:
        training, found = run_rmix(toy_config(folder, 8, learning_rate=None, freeze_from=str(tmp_path / "run")), device)
    assert found == []
    assert {parameter.device for parameter in training.model.parameters()} == {DEVICE}


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WAITING])
def test_no_method_waits_but_those_that_say_so(folder, method, device):
    training = Training(toy_config(folder, 16), method=method)
    device.found.clear()
    for _ in range(STEPS):
        training.fit_step()
    assert device.found == []


@pytest.mark.parametrize("method", ["puzzlemix", "comixup"])
def test_no_method_waits_for_what_it_learns_of_its_step(folder, method, device):
    """Without the transport, which waits by itself; what it has moved is moved back without a look."""
    without = {"puzzlemix": {"transport": False}, "comixup": {"clean_lam": 0.0}}[method]
    training = Training(toy_config(folder, 16, method=method, mixing=without, saliency_mode="recycled"), method=method)
    device.found.clear()
    for _ in range(STEPS):
        training.fit_step()
    assert device.found == []
    there = to_device(torch.rand(4, 16, 16), DEVICE)
    source = to_device(torch.zeros(4, 16, dtype=torch.int64), DEVICE)
    device.found.clear()
    move_back(there, source, there[:, :4, :4] > 0)
    assert device.found == []


@pytest.mark.parametrize("mode", ["exact", "recycled"])
@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_a_step_of_rlmix_waits_once_for_what_the_agent_on_the_host_sees(folder, mode, observation, device):
    config = toy_config(folder, 16, observation=observation, credit="pair", saliency_mode=mode)
    agent = PPOAgent(RLMixVectorEnv(config=config), PPOConfig(), seed=0)
    features = agent.ppo.env.reset()
    device.found.clear()
    for _ in range(STEPS):
        with torch.no_grad():
            actions, _, _ = agent.policy(torch.from_numpy(features))
        features, rewards, _, _ = agent.ppo.env.step(actions.numpy())
    assert device.found == ["a copy to the host: Ranks.gather < to_host"] * STEPS
    assert rewards.shape == (16,)


@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_with_the_agent_on_the_device_a_step_waits_for_nothing_and_an_update_once(folder, observation, device):
    config = toy_config(folder, 16, num_train=128, observation=observation, credit="pair")
    agent = DeviceAgent(RLMixVectorEnv(config=config), PPOConfig(rollout_steps=4, gamma=0.5, minibatch_size=32), seed=0)
    assert {parameter.device for parameter in agent.policy.parameters()} == {DEVICE}
    device.found.clear()
    for _ in range(4):
        agent.step()
    assert device.found == []
    agent.update(agent.process.observe())
    assert device.found == ["a copy to the host: DeviceAgent.update"]
    moments = [state["exp_avg"].device for state in agent.policy.optimizer.state.values()]
    assert moments == [DEVICE] * len(list(agent.policy.parameters()))


# -- graphs


BREAKS = """
import torch
from rlmix.data.augmentation import CropFlip, crop_flip, normalize
from rlmix.envs.credit import share_credit
from rlmix.envs.map_rewards import cosine, rarity
from rlmix.maps.approximate import Evidence
from rlmix.maps.composition import Pairs
from rlmix.maps.gradient import Saliency, gradient_map, patch_saliency, salient_mask
from rlmix.maps.recycled import read_evidence
from rlmix.mixing.core import mix
from rlmix.training.guard import finite_saliency

images, maps, labels, partner = torch.randn(6, 3, 16, 16), torch.rand(6, 16, 16), torch.arange(6) % 3, torch.randperm(6)
top_k, pixels = torch.rand(6) * 0.99, torch.zeros(6, 16, 16, 3, dtype=torch.uint8)

def augment(top, left, mirror):
    return normalize(crop_flip(pixels, CropFlip(top, left, mirror), 2), torch.ones(3), torch.ones(3))

def mixture(maps, top_k, lam):
    shown, sound = finite_saliency(Saliency(maps, torch.zeros(6, 3)))
    return mix(images, labels, salient_mask(patch_saliency(shown.map, 4), top_k), partner, lam, num_classes=3), sound

def pay(gradient, maps):
    rewards = cosine(maps, gradient_map(gradient))
    return share_credit(rewards, rewards[partner], "pair") + rarity(labels, 3)

def learn(gradient, weights):
    return read_evidence(Evidence(gradient, torch.zeros(6, 3), Pairs(weights, partner)))

for function, values in [
    (augment, (labels, labels, labels > 0)),
    (mixture, (maps, top_k, torch.tensor(0.3))),
    (pay, (images, maps)),
    (learn, (images, torch.rand(6, 4, 4))),
]:
    found = torch._dynamo.explain(function)(*values)
    print(function.__name__, found.graph_count, found.graph_break_count)
"""


def test_what_is_pure_of_a_step_is_one_graph_each():
    """In a process of its own: while the tests run, shapes are checked at every call, which dynamo does not look into."""
    found = subprocess.run([sys.executable, "-c", BREAKS], capture_output=True, text=True)
    assert found.stdout.splitlines() == ["augment 1 0", "mixture 1 0", "pay 1 0", "learn 1 0"], found.stderr
