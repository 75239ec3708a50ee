"""A learned policy, which decides and does not learn: on any classifier, data set, number of classes, batch size."""

from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.agents.actors import read_actor
from rlmix.agents.features import policy_features
from rlmix.agents.policies import POLICIES
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import stream
from rlmix.config import Config
from rlmix.envs.conversion import to_host
from rlmix.envs.isolation import isolated
from rlmix.envs.process import Decision
from rlmix.mixing.actions import Action


@POLICIES.register("policy", reads=("policy",))
class LearnedPolicy:
    """The policy of a run, or of a zip that Stable-Baselines3 or sb3-contrib saved, frozen.

    What it reads is the observation it was trained with (see :func:`~rlmix.agents.features.policy_features`: the ten largest
    log-probabilities, sorted, padded with -20), and what it chooses are its own top-k values, or
    what else its action space has. It draws from the distribution that it
    learned, for a mixed policy is one; DQN, which has none, takes the value it thinks best.

    Args:
        source: The run's folder, or a ``.zip`` of an algorithm that learned on :func:`~rlmix.agents.features.policy_features`.
        seed: Of its own generator.
        ranks: Each of them decides for the whole batch and takes its share.

    Raises:
        OSError: If there is no such run or file.
        ValueError: If nobody learned in it, or the zip holds another kind of policy.
    """

    @isolated()
    def __init__(self, source: Path, seed: int, ranks: Ranks | None = None) -> None:
        actor = read_actor(source)
        self.actor, self.actions, self.observation, self.greedy = actor
        self.generator = stream(seed, "policy")
        self.ranks = ranks or Ranks()
        self.entropy = 0.0

    @classmethod
    def from_config(cls, config: Config, ranks: Ranks | None = None) -> Self:
        """The one that ``config.run.policy`` names."""
        if config.run.policy is None:
            raise ValueError("policy must be given with method policy, got None")
        return cls(Path(config.run.policy), config.run.seed, ranks)

    @property
    def values(self) -> Float[Tensor, " choices"]:
        """The top-k value of each choice."""
        return self.actions.top_k

    @isolated()
    @torch.no_grad()
    def probabilities(self, decision: Decision) -> Float[Tensor, "batch choices"]:
        """How likely each choice is, for each image of all ranks' batch; on the host."""
        features = policy_features(to_host(decision, self.observation, ranks=self.ranks)[0])
        scores = self.actor(torch.from_numpy(features))
        return nn.functional.one_hot(scores.argmax(1), scores.shape[1]).float() if self.greedy else scores.softmax(1)

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"] | Action:
        probabilities = self.probabilities(decision)
        self.entropy = float(torch.special.entr(probabilities).sum(1).mean())
        index = torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]
        return self.actions[self.ranks.share(index)].simplest

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


@POLICIES.register("shuffled", reads=("policy",))
class ShuffledPolicy(LearnedPolicy):
    """Control: the choices of a learned policy, dealt anew among the images of the batch: how much it mixes, and not whom."""

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"] | Action:
        chosen = super().__call__(decision)
        return chosen[torch.randperm(len(chosen), generator=self.generator)]
