"""A learned policy as one module of torch alone: maps and logits in, what is chosen out."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.tensor_features import angle, logit_features, map_features
from rlmix.envs.rewards import AGENT_PATCHES


class StandalonePolicy(nn.Module):
    """A policy of the paper's observation.

    It decides as :class:`~rlmix.agents.learned.LearnedPolicy` does, on any device, and knows nothing of rlmix: ``torch.export`` takes it.

    Args:
        actor: From features to a score for each top-k value.
        values: The top-k values; rows, where more is chosen.
        greedy: Whether the best value is taken; otherwise one is drawn as likely as the policy has it, by torch's global generator.
    """

    values: Float[Tensor, "choices *columns"]

    def __init__(self, actor: nn.Module, values: Float[Tensor, "choices *columns"], greedy: bool) -> None:
        super().__init__()
        self.actor, self.greedy = actor, greedy
        self.register_buffer("values", values)

    def forward(
        self, maps: Float[Tensor, "batch patch patch"], logits: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch *columns"]:
        """Choose a top-k value for each image, or a row.

        Args:
            maps: Saliency of 8x8 patches, at least 0, of any scale.
            logits: Of the same images, from the pass that gave their saliency.
        """
        return self.choose(_image_features(_scaled(maps), logits))

    def probabilities(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch choices"]:
        """How likely each choice is."""
        scores = self.actor(features)
        return F.one_hot(scores.argmax(1), scores.shape[1]).float() if self.greedy else scores.softmax(1)

    def choose(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch *columns"]:
        """Choose by what :func:`~rlmix.agents.features.policy_features` gives."""
        if self.greedy:
            return self.values[self.actor(features).argmax(1)]
        return self.values[torch.multinomial(self.probabilities(features), 1)[:, 0]]


class StandalonePairPolicy(StandalonePolicy):
    """A policy of the pair's observation."""

    def forward(  # type: ignore[override]
        self,
        maps: Float[Tensor, "batch patch patch"],
        logits: Float[Tensor, "batch classes"],
        partner: Int[Tensor, " batch"],
        lam: Float[Tensor, ""],
        progress: Float[Tensor, ""],
    ) -> Float[Tensor, "batch *columns"]:
        """Choose a top-k value for each image, or a row.

        Args:
            maps: Saliency of 8x8 patches, at least 0, of any scale.
            logits: Of the same images, from the pass that gave their saliency.
            partner: A permutation: image ``partner[i]`` is mixed into image ``i``.
            lam: The first image's weight in a blend, in [0, 1].
            progress: Part of the training that is over, in [0, 1].
        """
        maps, host = _scaled(maps), partner.argsort()
        seen = [_image_features(maps[index], logits[index]) for index in (slice(None), partner, host)]
        angles = [angle(maps, maps[index]) for index in (partner, host)]
        numbers = [number.to(maps) * torch.ones_like(maps[:, :1, 0]) for number in (lam, progress)]
        return self.choose(torch.cat([*seen, *(4 * number - 2 for number in (*angles, *numbers))], 1))


MODULES: dict[str, Any] = {"paper": StandalonePolicy, "pair": StandalonePairPolicy}
"""By observation."""


def standalone_policy(policy: LearnedPolicy) -> StandalonePolicy:
    """Give a learned policy as one module, in eval mode.

    Raises:
        ValueError: If its observation is somebody's own.
    """
    if policy.observation not in MODULES:
        raise ValueError(f"observation must be paper or pair in a policy that stands alone, got {policy.observation}")
    module: StandalonePolicy = MODULES[policy.observation](policy.actor, policy.actions.rows, policy.greedy)
    return module.eval().requires_grad_(False)


def example_inputs(policy: StandalonePolicy, num_classes: int, batch_size: int = 4) -> dict[str, Tensor]:
    """Inputs of the module by name: uniform maps, logits of 0."""
    inputs = {
        "maps": torch.ones(batch_size, AGENT_PATCHES, AGENT_PATCHES),
        "logits": torch.zeros(batch_size, num_classes),
    }
    if isinstance(policy, StandalonePairPolicy):
        inputs |= {"partner": torch.arange(batch_size).roll(1), "lam": torch.tensor(0.5), "progress": torch.tensor(0.0)}
    return inputs


def _scaled(maps: Tensor) -> Tensor:
    """Of a sum of 1; what is undefined becomes uniform, as :func:`~rlmix.maps.gradient.patch_saliency` has it."""
    total = maps.sum((1, 2), keepdim=True)
    return torch.where(total.isfinite() & (total > 0), maps / total, 1 / AGENT_PATCHES**2)


def _image_features(maps: Tensor, logits: Tensor) -> Tensor:
    """What :func:`~rlmix.agents.features.policy_features` gives of the paper's observation."""
    return torch.cat([map_features(maps), logit_features(logits)], 1)
