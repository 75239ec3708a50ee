"""The paper's joint form: one agent whose action is the whole batch's top-k values, through a network that each image shares."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn


class PerImageNetworks(nn.Module):
    """The same actor and critic layers for every image of the batch; the critic's are averaged over it.

    Stands in for Stable-Baselines3's MlpExtractor, whose interface it has.
    """

    def __init__(
        self, num_features: int, policy_layers: list[int], value_layers: list[int], activation: type[nn.Module], batch_size: int
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.policy_net = _layers(num_features, policy_layers, activation)
        self.value_net = _layers(num_features, value_layers, activation)
        self.latent_dim_pi, self.latent_dim_vf = policy_layers[-1] * batch_size, value_layers[-1]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """(n, B * F) to (n, B * hidden)."""
        return self.policy_net(features.unflatten(1, (-1, self.num_features))).flatten(1)

    def forward_critic(self, features: Tensor) -> Tensor:
        """(n, B * F) to (n, hidden)."""
        return self.value_net(features.unflatten(1, (-1, self.num_features))).mean(1)


class PerImageHead(nn.Module):
    """One linear layer for every image: (n, B * hidden) to (n, B * K)."""

    def __init__(self, hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.linear = nn.Linear(hidden, num_outputs)

    def forward(self, latent: Tensor) -> Tensor:
        return self.linear(latent.unflatten(1, (-1, self.hidden))).flatten(1)


class JointPolicy(ActorCriticPolicy):
    """Actor-critic over ``MultiDiscrete([K] * B)`` with F features an image; its size does not depend on B."""

    action_space: spaces.MultiDiscrete

    def _build_mlp_extractor(self) -> None:
        layers: Any = self.net_arch
        batch_size = len(self.action_space.nvec)
        self.mlp_extractor: Any = PerImageNetworks(
            self.features_dim // batch_size, list(layers["pi"]), list(layers["vf"]), self.activation_fn, batch_size
        ).to(self.device)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        hidden = self.net_arch["pi"][-1]  # type: ignore[call-overload]
        self.action_net = PerImageHead(hidden, int(self.action_space.nvec[0])).to(self.device)
        self.action_net.apply(lambda module: self.init_weights(module, gain=0.01))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


def _layers(num_features: int, sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    inputs = [num_features, *sizes[:-1]]
    pairs = [(nn.Linear(before, after), activation()) for before, after in zip(inputs, sizes, strict=True)]
    return nn.Sequential(*(module for pair in pairs for module in pair))
