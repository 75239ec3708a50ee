"""A contextual bandit: one network, one gradient step a batch, no critic and no future."""

from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from rlmix.agents.actors import check_algorithm
from rlmix.agents.algorithms import ALGORITHMS, check_discrete
from rlmix.agents.features import num_features, policy_features
from rlmix.common.seeding import drawing_from, stream
from rlmix.envs.conversion import to_host
from rlmix.envs.env import RLMixEnv
from rlmix.envs.map_rewards import standardize
from rlmix.envs.process import Decision, MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig
from rlmix.training.guard import check_agent


@ALGORITHMS.register("bandit", reads=("learning_rate", "entropy_coefficient", "policy_layers"), layers=r"\d+")
class BanditAgent:
    """REINFORCE with the batch's mean reward as its baseline (Williams 1992), after every batch.

    What an image is, hardly depends on what was chosen for others before; to a bandit it does not at all. The images of a batch share
    lam and the classifier's state, so their mean is a good baseline, and a critic has little to add.

    Args:
        env: The vector form.
        config: Of it the learning rate, the actor's layers and the entropy coefficient are used.
        seed: Of the network's weights and of its draws.
    """

    algorithm = "bandit"

    def __init__(self, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> None:
        config.check()
        if not isinstance(env, RLMixVectorEnv):
            raise ValueError("granularity must be image under the bandit, which decides image by image, got batch")
        check_discrete(env, "the bandit")
        self.process: MixingProcess = env.process
        self.process.reset()
        self.entropy_coefficient, self.learning_rate = config.entropy_coefficient, config.learning_rate
        sizes = [num_features(self.process.observation), *config.policy_layers]
        with drawing_from(stream(seed, "policy")):
            hidden = [layer for before, after in pairwise(sizes) for layer in (nn.Linear(before, after), nn.Tanh())]
            last = nn.Linear(sizes[-1], len(self.process.actions))
        self.policy = nn.Sequential(*hidden, last)
        nn.init.zeros_(last.weight)  # uniform at first
        nn.init.zeros_(last.bias)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.learning_rate)
        self.generator = stream(seed, "policy draws")
        self.entropies: list[float] = []
        """Of the epoch in progress."""

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None:
        """Train until the classifier's budget is used up; as :meth:`rlmix.agents.sb3.ppo.PPOAgent.learn`."""
        training = self.process.require_training()
        if training.ranks.size > 1:
            raise ValueError(f"algorithm must be one of Stable-Baselines3's on {training.ranks.size} devices, got bandit")
        while not training.mixing_finished:
            for _ in range(training.steps_left):
                self.entropies.append(float(self.learn_step(self.process.observe())))
                if not training.at_epoch_end:
                    on_step()
            entropies, self.entropies = self.entropies, []
            on_epoch({"policy_entropy": fmean(entropies)})

    def learn_step(self, decision: Decision) -> Tensor:
        """Choose for a batch, and follow the gradient of ``advantage * log probability``; gives the mean entropy in nats."""
        logits = self.policy(torch.from_numpy(policy_features(to_host(decision, self.process.observation)[0])))
        training, scored = self.process.require_training(), bool(logits.isfinite().all())
        check_agent(self.policy, self.learning_rate, training.epoch, training.global_step, scored)
        log_probabilities = logits.log_softmax(1)
        index = torch.multinomial(log_probabilities.detach().exp(), 1, generator=self.generator)
        rewards = self.process.act(self.process.actions[index[:, 0]]).cpu()
        entropy = torch.special.entr(log_probabilities.exp()).sum(1).mean()
        gain = (standardize(rewards) * log_probabilities.gather(1, index)[:, 0]).mean()
        self.optimizer.zero_grad()
        (-gain - self.entropy_coefficient * entropy).backward()
        self.optimizer.step()
        return entropy.detach()

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer and generator."""
        return {
            "algorithm": self.algorithm,
            "parameters": {"policy": self.policy.state_dict(), "policy.optimizer": self.optimizer.state_dict()},
            "generator": self.generator.get_state(),
            "entropies": list(self.entropies),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken; ValueError where that was another algorithm's."""
        check_algorithm(state, self.algorithm)
        self.policy.load_state_dict(state["parameters"]["policy"])
        self.optimizer.load_state_dict(state["parameters"]["policy.optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.entropies = list(state["entropies"])
