"""PPO where the classifier lives: what is seen, chosen, earned and learned stays on its device.

Policy, optimizer and hyperparameters are those of Stable-Baselines3's PPO, which is the reference: on the same rollout the update is the
same but for rounding, and what is saved is the same.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlmix.agents.algorithms import check_discrete
from rlmix.agents.sb3.host_ppo import build_ppo, one_thread
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.agents.tensor_features import tensor_features
from rlmix.common.seeding import stream
from rlmix.common.transfer import to_device
from rlmix.envs.env import RLMixEnv
from rlmix.envs.observations import observe
from rlmix.envs.process import Decision
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig

FIGURES = ("policy_loss", "value_loss", "policy_entropy", "clip_fraction", "approx_kl")
"""Of a minibatch."""


class Transition(NamedTuple):
    """A step of all slots."""

    observations: Float[Tensor, "slot features"]
    actions: Int[Tensor, " slot"]
    rewards: Float[Tensor, " slot"]
    values: Float[Tensor, " slot"]
    log_probs: Float[Tensor, " slot"]


class DeviceAgent(PPOAgent):
    """PPO with a decision an image, without a round trip to the host: it reads an update's figures, and nothing in a step.

    Args:
        env: The vector form.
        config: Hyperparameters.
        seed: As of :class:`~rlmix.agents.sb3.ppo.PPOAgent`; what is chosen is drawn from a generator on the device.
    """

    def __init__(self, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> None:
        if isinstance(env, RLMixVectorEnv):
            check_discrete(env, "agent_device classifier")
        super().__init__(env, config, seed)
        if not isinstance(env, RLMixVectorEnv) or self.process.ranks.size > 1:
            raise ValueError("agent_device must be cpu without granularity image, or on several devices, got classifier")
        device = self.process.require_training().device
        self.generator = stream(seed, "policy draws", device)
        self.actions = self.process.actions.to(device)
        self.kept: list[Transition] = []
        """Since the last update."""

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        device = self.process.require_training().device
        return build_ppo(policy, vec_env, config, self.rollouts[0], common | {"device": device})

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None:
        """Train until the classifier's budget is used up; as :meth:`rlmix.agents.sb3.ppo.PPOAgent.learn`."""
        training, ends = self.process.require_training(), {*np.cumsum(self.rollouts).tolist()}
        while not training.mixing_finished:
            self.step()
            if training.trained not in ends:
                on_step()
                continue
            over = training.at_epoch_end
            figures = self.update(None if training.mixing_finished else self.process.observe())
            if over:
                on_epoch(figures)
            else:
                self.on_update(figures)
                on_step()

    @torch.no_grad()
    def step(self) -> None:
        """Choose for the batch that waits, train on its mixture, and keep what that has earned."""
        decision = self.process.observe()
        features = self.features(decision)
        log_probabilities, values = self.judge(features)
        probabilities = log_probabilities.exp()
        # the exponential race, which is how torch.multinomial draws: the host need not look whether the probabilities are sound
        noise = torch.empty_like(probabilities).exponential_(generator=self.generator)
        actions = (probabilities / noise).argmax(1)
        rewards = self.process.act(self.actions[actions])
        chosen = log_probabilities.gather(1, actions[:, None])[:, 0]
        self.kept.append(Transition(features, actions, rewards.float(), values, chosen))
        self.ppo.num_timesteps += len(rewards)

    def features(self, decision: Decision) -> Float[Tensor, "slot features"]:
        """What the policy reads."""
        return tensor_features(observe(decision, self.process.observation))

    def judge(self, features: Float[Tensor, "batch features"]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (batch, K), and values (batch,), of Stable-Baselines3's policy."""
        actor, critic = self.ppo.policy.mlp_extractor(features)
        return self.ppo.policy.action_net(actor).log_softmax(1), self.ppo.policy.value_net(critic)[:, 0]

    def update(self, following: Decision | None) -> dict[str, float]:
        """Learn from what is kept, and forget it; the figures are read at once, the update's only wait for the device.

        Args:
            following: The decision after it; None where the training is over.

        Raises:
            FloatingPointError: If the policy is not finite any more.
        """
        kept = Transition(*(torch.stack(parts) for parts in zip(*self.kept, strict=True)))
        self.kept = []
        last = torch.zeros_like(kept.values[0])
        if following is not None:
            with torch.no_grad():
                last = self.judge(self.features(following))[1]
        advantages = advantages_of(kept.rewards, kept.values, last, self.ppo.gamma, self.ppo.gae_lambda)
        returns = advantages + kept.values
        # image by image, as Stable-Baselines3 lays a rollout out
        flat = Transition(*(part.transpose(0, 1).flatten(0, 1) for part in kept))
        wanted, expected = (part.transpose(0, 1).flatten() for part in (advantages, returns))
        total, size, found = len(flat.rewards), self.ppo.batch_size, []
        with one_thread() if last.device.type == "cpu" else nullcontext():
            for _ in range(self.ppo.n_epochs):
                # on the host and from NumPy's global state, as Stable-Baselines3 draws it
                order = to_device(torch.from_numpy(np.random.permutation(total)), last.device)  # noqa: NPY002
                found.append([self._descend(flat, wanted, expected, index) for index in order.split(size)])
        self.ppo._n_updates += self.ppo.n_epochs
        unexplained = (returns - kept.values).var(correction=0) / returns.var(correction=0)
        sums = [torch.stack([part for one in found for part in one]).mean(0)[:-1], torch.stack(found[-1]).mean(0)[-1:]]
        sound = torch.stack([parameter.isfinite().all() for parameter in self.policy.parameters()]).all()
        *numbers, explained, finite = torch.cat([*sums, torch.stack([1 - unexplained, sound.float()])]).cpu().tolist()
        if not finite:
            self.check_finite()
        named = dict(zip(FIGURES, numbers, strict=True))
        self.ppo.keep_entropy(named["policy_entropy"])
        return named | {"explained_variance": explained if math.isfinite(explained) else float("nan")}

    def _descend(self, kept: Transition, advantages: Tensor, returns: Tensor, index: Int[Tensor, " minibatch"]) -> Tensor:
        """A gradient step on a minibatch, and its figures; Stable-Baselines3's ``PPO.train`` without its reading of numbers."""
        ppo, policy = self.ppo, self.ppo.policy
        clip, advantage = ppo.clip_range(1.0), advantages[index]
        log_probabilities, values = self.judge(kept.observations[index])
        log_prob = log_probabilities.gather(1, kept.actions[index][:, None])[:, 0]
        if ppo.normalize_advantage and len(index) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_ratio = log_prob - kept.log_probs[index]
        ratio = log_ratio.exp()
        policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
        value_loss = F.mse_loss(returns[index], values)
        entropy = -(log_probabilities * log_probabilities.exp()).sum(1).mean()
        loss = policy_loss - ppo.ent_coef * entropy + ppo.vf_coef * value_loss
        policy.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), ppo.max_grad_norm)
        policy.optimizer.step()
        clipped = ((ratio.detach() - 1).abs() > clip).float().mean()
        divergence = (ratio.detach() - 1 - log_ratio.detach()).mean()
        return torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), clipped, divergence])

    def collected(self) -> dict[str, Tensor]:
        return {name: torch.stack([getattr(one, name) for one in self.kept]) for name in Transition._fields if self.kept}

    def state_dict(self) -> dict[str, Any]:
        """As of :class:`~rlmix.agents.sb3.ppo.PPOAgent`, and the generator."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        device = self.process.require_training().device
        parts = [state["rollout"][name].to(device) for name in Transition._fields] if state["rollout"] else []
        self.kept = [Transition(*step) for step in zip(*parts, strict=True)]
        self.generator.set_state(state["generator"].cpu())


def advantages_of(
    rewards: Float[Tensor, "step slot"],
    values: Float[Tensor, "step slot"],
    last: Float[Tensor, " slot"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "step slot"]:
    """Generalized advantage estimates (Schulman et al. 2016) of a rollout within an epoch.

    Args:
        rewards: Of a rollout.
        values: What the critic expected.
        last: What it expects after it; 0 where the training is over. An epoch's end is no end to it.
        gamma: Discount.
        gae_lambda: Of the estimate.
    """
    found: list[Tensor] = []
    ahead = torch.zeros_like(last)
    for reward, value in zip(rewards.flip(0), values.flip(0), strict=True):
        ahead = reward + gamma * last - value + gamma * gae_lambda * ahead
        last = value
        found.append(ahead)
    return torch.stack(found[::-1])
