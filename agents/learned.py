"""A run's learned policy, which decides and does not learn: on any classifier, data set, number of classes, batch size."""

import re
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.features import policy_features
from rlmix.agents.policies import POLICIES
from rlmix.common.ranks import Ranks
from rlmix.common.saved_config import read_config
from rlmix.common.seeding import stream
from rlmix.config import Config
from rlmix.envs.conversion import to_host
from rlmix.envs.process import Decision
from rlmix.mixing.core import top_k_values
from rlmix.training.checkpoints import newest_state


@POLICIES.register("policy", reads=("policy",))
class LearnedPolicy:
    """The policy of the run in ``folder``, frozen.

    What it reads is the observation it was trained with (see :func:`~rlmix.agents.features.policy_features`: the ten largest
    log-probabilities, sorted, padded with -20), and what it chooses are its own top-k values. It draws from the distribution that it
    learned, for a mixed policy is one; DQN, which has none, takes the value it thinks best.

    Args:
        folder: The run's.
        seed: Of its own generator.
        ranks: Each of them decides for the whole batch and takes its share.

    Raises:
        OSError: If there is no such run.
        ValueError: If nobody learned in it.
    """

    def __init__(self, folder: Path, seed: int, ranks: Ranks | None = None) -> None:
        config, state = read_config(folder), newest_state(folder)
        if "parameters" not in state.get("decider", {}):
            raise ValueError(
                f"policy must be the folder of a run in which an agent learned, got {folder} of {config.get('method')}"
            )
        algorithm, trained = (str(source.get("algorithm", "ppo")) for source in (config, state.get("config", config)))
        if algorithm != trained:
            raise ValueError(f"the policy in {folder} must be one of {algorithm}, as its config.yaml says, got one of {trained}")
        check_algorithm(state["decider"], algorithm)
        self.observation = str(config.get("observation") or "paper")
        self.greedy = bool(ALGORITHMS.entry(algorithm).traits.get("greedy"))
        self.values = top_k_values(int(config["num_top_k"]))
        self.actor = read_actor(state["decider"]["parameters"]["policy"], algorithm)
        self.generator = stream(seed, "policy")
        self.ranks = ranks or Ranks()
        self.entropy = 0.0

    @classmethod
    def from_config(cls, config: Config, ranks: Ranks | None = None) -> Self:
        """That of the run which ``config.run.policy`` names."""
        if config.run.policy is None:
            raise ValueError("policy must be given with method policy, got None")
        return cls(Path(config.run.policy), config.run.seed, ranks)

    @torch.no_grad()
    def probabilities(self, decision: Decision) -> Float[Tensor, "batch values"]:
        """How likely each of the K values is, for each image of all ranks' batch; on the host."""
        features = policy_features(to_host(decision, self.observation, ranks=self.ranks)[0])
        scores = self.actor(torch.from_numpy(features))
        return nn.functional.one_hot(scores.argmax(1), scores.shape[1]).float() if self.greedy else scores.softmax(1)

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"]:
        probabilities = self.probabilities(decision)
        self.entropy = float(torch.special.entr(probabilities).sum(1).mean())
        return self.ranks.share(self.values[torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]])

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def read_actor(weights: dict[str, Tensor], algorithm: str) -> nn.Sequential:
    """The network from features to K scores: the tanh layers that the algorithm trained, from its state dict."""
    pattern = ALGORITHMS.entry(algorithm).traits.get("layers")
    if pattern is None:
        raise ValueError(f"algorithm {algorithm} must say by the trait layers where its policy's layers are, and does not")
    names = [name.removesuffix(".weight") for name in weights if re.fullmatch(rf"({pattern})\.weight", name)]
    layers: list[nn.Module] = []
    for name in names:
        linear = nn.Linear(weights[f"{name}.weight"].shape[1], weights[f"{name}.weight"].shape[0])
        linear.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def check_algorithm(state: dict[str, Any], algorithm: str) -> None:
    """Raise ValueError where an agent's state is another algorithm's; those of before it was recorded do not say."""
    if state.get("algorithm", algorithm) != algorithm:
        raise ValueError(f"the agent's state must be one of {algorithm}, got one of {state['algorithm']}")
