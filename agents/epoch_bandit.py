"""Long-horizon credit: a bandit that chooses how a whole epoch is mixed, and is paid by what the epoch does to the validation loss."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.agents.actors import check_algorithm
from rlmix.agents.algorithms import ALGORITHMS, check_discrete
from rlmix.common.seeding import drawing_from, stream
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig
from rlmix.training.guard import check_agent

MEMORY = 0.8
"""How much of the mean gain, and of its mean square, an epoch leaves as it was."""


@ALGORITHMS.register("epochs", reads=("learning_rate", "entropy_coefficient"), own_reward=True)
class EpochBandit:
    """REINFORCE over whole epochs (Williams 1992): one of A + 1 settings an epoch, by the training's progress.

    A step's reward cannot see what mixing is for: a mixture that is easy to learn from now may leave the classifier overfitted at the end.
    Here an epoch's setting is paid by how much lower the validation loss is after it, less the running mean of such gains, over their
    running deviation. The settings are all choices alike (R-Mix), or each of the A choices for every image. ``--reward`` is measured, as
    for a policy that does not learn, and not read.

    Args:
        env: The vector form.
        config: Of it the learning rate and the entropy coefficient are used.
        seed: Of the network's weights and of its draws.

    Raises:
        ValueError: If the environment has another form, the classifier is frozen, or the data have no validation split.
    """

    algorithm = "epochs"

    def __init__(self, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> None:
        config.check()
        if not isinstance(env, RLMixVectorEnv):
            raise ValueError("granularity must be image under epochs, whose setting is every image's, got batch")
        check_discrete(env, "epochs")
        self.process: MixingProcess = env.process
        frozen = self.process.config.model.freeze_from
        if frozen is not None:
            raise ValueError(
                f"freeze_from must not be given with algorithm epochs, which is paid by what the classifier learns, got {frozen}"
            )
        training = self.process.reset()
        if "val" not in training.data.measured:
            raise ValueError("algorithm epochs must go with a validation split (--val-fraction, such as 0.1, or data with one)")
        if training.ranks.size > 1:
            raise ValueError(f"algorithm must be one of Stable-Baselines3's on {training.ranks.size} devices, got epochs")
        self.entropy_coefficient, self.learning_rate = config.entropy_coefficient, config.learning_rate
        self.num_settings = len(self.process.actions) + 1
        with drawing_from(stream(seed, "policy")):
            self.policy = nn.Linear(2, self.num_settings)
        nn.init.zeros_(self.policy.weight)  # uniform at first
        nn.init.zeros_(self.policy.bias)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.learning_rate)
        self.generator = stream(seed, "policy draws")
        self.setting = -1
        """Of the epoch in progress; -1 before it is chosen."""
        self.loss = float("nan")
        """On the validation split, after the last epoch."""
        self.mean, self.square, self.weight = 0.0, 0.0, 0.0

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None:
        """Train until nothing is left to mix; as :meth:`rlmix.agents.sb3.ppo.PPOAgent.learn`."""
        training = self.process.require_training()
        while not training.mixing_finished:
            before_it = training.epoch if training.at_epoch_end else training.epoch - 1
            progress = before_it / training.mixed_epochs
            if self.setting < 0:
                self.loss = self.validation_loss() if math.isnan(self.loss) else self.loss
                self.setting = int(
                    torch.multinomial(self.log_probabilities(progress).detach().exp(), 1, generator=self.generator)
                )
            for _ in range(training.steps_left):
                self.process.observe()
                self.process.act(self.process.actions[self.draw(training.share)])
                if not training.at_epoch_end:
                    on_step()
            before, self.loss = self.loss, self.validation_loss()
            chosen, self.setting = self.setting, -1
            on_epoch(self.update(progress, chosen, before - self.loss))

    def draw(self, batch_size: int) -> Tensor:
        """Choices for a batch, as the epoch's setting has them."""
        if self.setting == 0:
            return torch.randint(self.num_settings - 1, (batch_size,), generator=self.generator)
        return torch.full((batch_size,), self.setting - 1)

    def log_probabilities(self, progress: float) -> Float[Tensor, " settings"]:
        """Of the settings, at this part of the training."""
        scores: Tensor = self.policy(torch.tensor([2 * progress - 1, 1.0]))
        return scores.log_softmax(0)

    def validation_loss(self) -> float:
        """Cross-entropy on the validation split, nats."""
        training = self.process.require_training()
        return float(F.cross_entropy(training.predict("val"), training.data.labels("val")))

    def update(self, progress: float, setting: int, gain: float) -> dict[str, float]:
        """Follow the gradient of ``advantage * log probability``; the first gain is its own mean, and moves nothing.

        A gain that is not finite, as where the validation loss overflows, counts for nothing.
        """
        log_probabilities = self.log_probabilities(progress)
        entropy = torch.special.entr(log_probabilities.exp()).sum()
        if math.isfinite(gain):
            self.optimizer.zero_grad()
            (-self.advantage(gain) * log_probabilities[setting] - self.entropy_coefficient * entropy).backward()
            self.optimizer.step()
        training = self.process.require_training()
        check_agent(
            self.policy, self.learning_rate, training.epoch, training.global_step, bool(log_probabilities.isfinite().all())
        )
        return {"policy_entropy": float(entropy.detach()), "setting": float(setting), "validation_gain": gain}

    def advantage(self, gain: float) -> float:
        """Take a gain into the running mean of gains and their deviation.

        Returns:
            How far it is above the mean, in deviations; 0 where all were alike.
        """
        self.weight = MEMORY * self.weight + 1 - MEMORY
        self.mean = MEMORY * self.mean + (1 - MEMORY) * gain
        self.square = MEMORY * self.square + (1 - MEMORY) * gain**2
        mean = self.mean / self.weight
        deviation = max(self.square / self.weight - mean**2, 0.0) ** 0.5
        return (gain - mean) / deviation if deviation > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer, generator, and what an epoch in progress is compared with."""
        return {
            "algorithm": self.algorithm,
            "parameters": {"policy": self.policy.state_dict(), "policy.optimizer": self.optimizer.state_dict()},
            "generator": self.generator.get_state(),
            "progress": [self.setting, self.loss, self.mean, self.square, self.weight],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken; ValueError where that was another algorithm's."""
        check_algorithm(state, self.algorithm)
        self.policy.load_state_dict(state["parameters"]["policy"])
        self.optimizer.load_state_dict(state["parameters"]["policy.optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.setting, self.loss, self.mean, self.square, self.weight = state["progress"]
