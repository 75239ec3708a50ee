"""RL-Mix in anyone's loop: a learned policy, frozen, or one that learns while that loop trains."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import Policy
from rlmix.agents.sb3.online import OnlinePPO
from rlmix.common.files import write_atomically
from rlmix.common.ranks import Ranks
from rlmix.common.saved_config import read_config
from rlmix.common.transfer import to_device
from rlmix.config import Config
from rlmix.envs.credit import CREDITS, share_credit
from rlmix.envs.process import Decision
from rlmix.envs.rewards import AGENT_PATCHES, UNMEASURED, Reaction, build_reward
from rlmix.maps.gradient import check_images, saliency
from rlmix.maps.patches import check_patches, pixel_share
from rlmix.mixing.actions import action_table, arrange, as_action, check_finest, weigh
from rlmix.mixing.core import Mixed, blend, check_mixing, sample_center, sample_pairing, soft_targets
from rlmix.option_groups import EnvConfig, PPOConfig
from rlmix.training.guard import finite_saliency
from rlmix.training.trainer import Batch


class RLMix:
    """RL-Mix for any training loop, used as :class:`rlmix.RMix` is: ``mixed = mixer(model, images, labels)``.

    With a run, ``RLMix("runs/...")``, the policy that was learned there decides, frozen; what it mixes with is that run's. With
    ``RLMix(learn=True)`` PPO learns in this loop: after ``loss.backward()`` a call of :meth:`feedback` pays it. Processes
    of several say nothing to each other: each mixes, draws by its own ``seed``, and learns a policy of its own.

    Args:
        policy: A run's folder, a zip of Stable-Baselines3, or a :class:`~rlmix.agents.policies.Policy`.
        learn: Whether PPO learns here; then there is no ``policy``, and the next six may be given, and only then.
        agent: PPO's hyperparameters; the defaults of ``rlmix train``.
        reward: What a mixture earns, one of maps; ``cosine``.
        credit: Who earns it; ``pair``.
        observation: What is seen of an image; ``pair``.
        action: What is chosen for it; ``top_k``.
        num_top_k: How many top-k values there are, at least 1; 10.
        num_patches: Patches per side of the masks, at least 1, one drawn a batch; the run's, or 2 and 4.
        alpha: Of ``lam ~ Beta(alpha, alpha)``, above 0; the run's, or 1.
        rule: How patches are mixed; the run's, or R-Mix's.
        seed: Of the policy's weights and draws, at least 0.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If nobody learned in it, or an argument is out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        >>> mixer = RLMix(learn=True)
        >>> mixed = mixer(model, torch.rand(6, 3, 16, 16), torch.arange(6) % 5)
        >>> nn.functional.cross_entropy(model(mixed.images), mixed.targets).backward()
        >>> mixer.feedback().shape
        torch.Size([6])
    """

    def __init__(
        self,
        policy: str | Path | Policy | None = None,
        *,
        learn: bool = False,
        agent: PPOConfig | None = None,
        reward: str | None = None,
        credit: str | None = None,
        observation: str | None = None,
        action: str | None = None,
        num_top_k: int | None = None,
        num_patches: tuple[int, ...] | None = None,
        alpha: float | None = None,
        rule: str | None = None,
        seed: int = 0,
    ) -> None:
        if learn == (policy is not None):
            raise ValueError(f"policy must be given, or learn be True, and not both, got {policy} and {learn}")
        of_learning: dict[str, Any] = {
            "agent": agent,
            "reward": reward,
            "credit": credit,
            "observation": observation,
            "action": action,
        }
        of_learning |= {"num_top_k": num_top_k}
        for name, value in of_learning.items():
            if value is not None and not learn:
                raise ValueError(f"{name} must be left out with a policy that does not learn here, got {value}")
        config = Config()
        self.policy: Policy | None = None
        if isinstance(policy, str | Path):
            self.policy = LearnedPolicy(Path(policy), seed, Ranks(alone=True))
            config = config if Path(policy).suffix == ".zip" else Config.from_mapping(read_config(Path(policy)))
        elif policy is not None:
            self.policy = policy
        num_top_k = config.mixing.num_top_k if num_top_k is None else num_top_k
        self.num_patches = config.mask_patches if num_patches is None else tuple(num_patches)
        self.alpha = config.policy_alpha if alpha is None else alpha
        self.rule = config.mixing.rule if rule is None else rule
        check_mixing(num_top_k, self.num_patches, self.alpha, self.rule)
        reward = EnvConfig.reward if reward is None else reward
        self.reward, self.credit = build_reward(reward), "pair" if credit is None else credit
        CREDITS[self.credit]  # raises where there is no such credit
        if not self.reward.of_gradients or reward == UNMEASURED:
            raise ValueError(f"reward must be one of maps in a loop of one's own, got {reward}")
        observation = "pair" if observation is None else observation
        action = EnvConfig.action if action is None else action
        actions = action_table(action, num_top_k)
        self.learner = OnlinePPO(agent or PPOConfig(), observation, action, actions, seed) if learn else None
        self.boxes = (actions if learn else getattr(self.policy, "actions", actions)).box is not None
        """Whether boxes may be chosen."""
        if self.boxes:
            check_finest(self.num_patches)
        self._waiting: tuple[Mixed, Decision, Tensor, Tensor] | None = None

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int | None = None,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Mixed:
        """Mix a batch.

        Args:
            model: The classifier in training; left as found.
            images: The batch, as the model takes it, of at least 8 pixels a side.
            labels: Class indices of any integer type, or soft targets (B, N).
            num_classes: N; as many as the model has logits where not given.
            generator: Draws partners, lam and num_patches; the global one where None.
            progress: Part of the training that is over, in [0, 1], which the pair's observation shows.

        Raises:
            ValueError: If the images are none, or too small, or ``progress`` is out of range.
            FloatingPointError: If the learning policy is not finite any more.
        """
        check_images(images)
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {progress}")
        check_patches((AGENT_PATCHES, *self.num_patches), images.shape[2:])
        seen, sound = finite_saliency(saliency(model, images, labels))
        pairing = sample_pairing(len(images), self.num_patches, self.alpha, generator)
        pairing = pairing._replace(partner=to_device(pairing.partner, images.device))
        center = to_device(sample_center(len(images), generator), images.device) if self.boxes else None
        decision = Decision(Batch(images, labels), seen, pairing, progress, sound, center)
        choose: Any = self.learner or self.policy
        chosen = as_action(choose(decision)).to(images.device)
        pairing = arrange(pairing, chosen, seen.map)
        weights = weigh(seen.map, chosen, pairing, self.rule, center=center).weights
        targets = soft_targets(labels, num_classes or seen.logits.shape[1])
        mixed = blend(images, targets, weights, pairing.partner)
        if self.learner is not None:
            mixed = mixed._replace(images=mixed.images.detach().requires_grad_())
            self._waiting = mixed, decision, pairing.partner, pixel_share(weights, images.shape[2:])
        return mixed

    def feedback(self, gradient: Float[Tensor, "batch channel height width"] | None = None) -> Float[Tensor, " batch"]:
        """Pay the policy for the last batch; after a rollout it is updated before it chooses again.

        Args:
            gradient: Of the loss with respect to the mixed images, times any constant; what ``loss.backward()`` has left in
                ``mixed.images.grad`` where not given.

        Returns:
            What each image's choice was paid; 0 where the gradient is not finite.

        Raises:
            RuntimeError: If nothing learns here, no batch waits, or there has been no backward pass.
            ValueError: If the credit gives other than one number an image.
        """
        if self.learner is None or self._waiting is None:
            raise RuntimeError("feedback() must follow a call of RLMix(learn=True)")
        (mixed, decision, partner, share), self._waiting = self._waiting, None
        gradient = mixed.images.grad if gradient is None else gradient
        if gradient is None:
            raise RuntimeError("feedback() must follow loss.backward(), or be given the gradient of the mixed images")
        rewards = self.reward.judge(mixed, Reaction(decision.saliency.map, gradient.float(), partner, share))
        finite = rewards.isfinite() & gradient.isfinite().flatten(1).all(1) & decision.sound  # a map of nan would count as even
        rewards = torch.where(finite, rewards, 0.0)
        paid = share_credit(rewards, rewards[partner.argsort()], self.credit)
        self.learner.pay(paid.detach().cpu())
        return paid.detach()

    def save(self, path: str | Path) -> None:
        """Write the policy as Stable-Baselines3's zip, which ``RLMix(path)`` and ``rlmix train --method policy --policy`` take.

        Args:
            path: The file; it must end in ``.zip``.

        Raises:
            RuntimeError: If nothing has learned here yet.
            ValueError: If ``path`` ends in anything else.
        """
        if Path(path).suffix != ".zip":
            raise ValueError(f"path must end in .zip, got {path}")
        if self.learner is None or self.learner.ppo is None:
            raise RuntimeError("save() must follow a call of RLMix(learn=True)")
        learned = self.learner.ppo
        write_atomically(Path(path), lambda handle: learned.save(handle, exclude=["rollout_buffer_class", "env"]))

    def state_dict(self) -> dict[str, Any]:
        """Give everything that changes, between two batches."""
        decider: Any = self.learner or self.policy
        state: dict[str, Any] = decider.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        decider: Any = self.learner or self.policy
        decider.load_state_dict(state)
        self._waiting = None
