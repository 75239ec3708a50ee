"""The decision process that both environment forms show: a classifier trains, and someone chooses how each batch is mixed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlmix.config import TrainingConfig
from rlmix.datasets import ImageData, load_data
from rlmix.envs.rewards import AGENT_PATCHES, reward_function, share_credit
from rlmix.maps import Saliency, gradient_map, patch_saliency, salient_mask
from rlmix.mixing import Mixed, Pairing, check_mixing, mix, sample_pairing, top_k_values
from rlmix.seeding import derive
from rlmix.training import Batch, Training


@dataclass(frozen=True)
class Decision:
    """A batch that waits to be mixed: what is seen, and what chance has settled already."""

    batch: Batch
    saliency: Saliency
    patches: Float[Tensor, "batch 8 8"]
    """The pooled saliency map that the agent sees."""
    pairing: Pairing


@dataclass(frozen=True)
class Outcome:
    """What a decision led to; for pictures."""

    decision: Decision
    mask: Bool[Tensor, "batch patch patch"]
    top_k: Float[Tensor, " batch"]
    mixed: Mixed


class MixingProcess:
    """One classifier's training seen as a sequence of decisions, in torch and on its device.

    ``reset``, then ``observe`` and ``act`` in turn. Everything random is drawn before the decision (batch, partners, lam,
    num_patches), so that no action moves a later draw: policies can be compared on common random numbers.

    Args:
        config: The classifier's training.
        data: The data set, where it is loaded already; what ``config.data`` names otherwise.

    Attributes:
        on_epoch_end: Called with the training after an epoch's last step, before anything else is drawn.
        outcome: The last decision and what it led to.
    """

    def __init__(self, config: TrainingConfig, data: ImageData | None = None) -> None:
        config = config.resolved()
        self.num_patches = config.num_patches or (AGENT_PATCHES,)
        self.alpha = 1.0 if config.alpha is None else config.alpha
        check_mixing(config.num_top_k, self.num_patches, self.alpha, config.rule)
        self.config = config
        self.data = load_data(config) if data is None else data
        height, width = self.data.image_size
        for patches in (*self.num_patches, AGENT_PATCHES):
            if height % patches or width % patches:
                raise ValueError(f"num_patches must divide the image size {height}x{width}, got {patches}")
        self.values = top_k_values(config.num_top_k)
        self._reward = reward_function(config.reward)
        self.training: Training | None = None
        self.outcome: Outcome | None = None
        self.on_epoch_end: Callable[[Training], None] = lambda training: None
        self._decision: Decision | None = None
        self._rewards: list[Tensor] = []
        self._top_k: list[Tensor] = []
        self._undrawn: list[Tensor] = []
        self._loaded = False

    def reset(self, seed: int | None = None) -> Training:
        """Go to the start of an epoch.

        With a seed, or first of all, or when the training budget is used up: the first epoch of a new classifier. Otherwise the
        training goes on with its next epoch; what is left of an epoch in progress is given up, and the schedule moves past it. The
        first reset after :meth:`load_state_dict` goes on within the epoch.
        """
        loaded, self._loaded = self._loaded, False
        if loaded and seed is None:
            return self.require_training()
        if self.training is not None and seed is None and not self.training.finished:
            if self.training.trained > 0 and not self.training.at_epoch_end:
                self.training.skip_epoch()
                self._decision = None
            if not self.training.finished:
                return self.training
        if seed is not None:
            self.config = replace(self.config, seed=seed)
        elif self.training is not None:
            self.config = replace(self.config, seed=derive(self.config.seed, "next classifier") % 2**31)
        self.training = Training(self.config, self.data)
        self.data = self.training.data  # on the device from now on
        self._decision = self.outcome = None
        return self.training

    def observe(self) -> Decision:
        """The batch to decide about next. The saliency pass happens here, once a batch."""
        if self._decision is None:
            training = self.require_training()
            if training.finished:
                raise RuntimeError("reset() must be called after the end of the training, got another step")
            training.begin_epoch()
            self._undrawn = training.generator_states()
            batch = training.next_batch()
            saliency = training.saliency(batch)
            pairing = sample_pairing(training.share, self.num_patches, self.alpha, training.batch_generator())
            pairing = pairing._replace(partner=pairing.partner.to(training.device, non_blocking=True))
            self._decision = Decision(batch, saliency, patch_saliency(saliency.map, AGENT_PATCHES), pairing)
        return self._decision

    def act(self, top_k: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Mix the batch by each image's top-k value in [0, 1), train on it, and give each image its reward.

        The reward compares the gradient of the observation's pass with that of the training step's own backward pass.
        """
        training, decision = self.require_training(), self.observe()
        (images, labels), saliency, patches, pairing = decision.batch, decision.saliency, decision.patches, decision.pairing
        top_k = top_k.to(training.device, non_blocking=True)
        if pairing.num_patches != AGENT_PATCHES:
            patches = patch_saliency(saliency.map, pairing.num_patches)
        mask = salient_mask(patches, top_k)
        mixed = mix(images, labels, mask, pairing.partner, pairing.lam, self.config.rule, num_classes=self.data.num_classes)
        gradient = training.step(mixed, input_gradient=True)
        assert gradient is not None
        self.outcome, self._decision = Outcome(decision, mask, top_k, mixed), None
        rewards = self._reward(saliency.map, gradient_map(gradient))
        if training.trained == 1:
            self._rewards, self._top_k = [], []
        self._rewards.append(rewards)
        self._top_k.append(top_k)
        rewards = share_credit(rewards, rewards[pairing.partner.argsort()], self.config.credit)
        if training.at_epoch_end:
            self.on_epoch_end(training)
        return rewards

    def run_epoch(
        self, policy: Callable[[Decision], Tensor], on_step: Callable[[Tensor, Tensor], None] = lambda top_k, rewards: None
    ) -> None:
        """What is left of an epoch under a policy that maps a decision to top-k values (B,), without a round trip through NumPy."""
        training = self.require_training()
        for _ in range(training.steps_left):
            top_k = policy(self.observe())
            on_step(top_k, self.act(top_k))

    def epoch_metrics(self) -> dict[str, float]:
        """Over this epoch's images so far: mean and standard deviation of the reward before credit is shared, and the mean top-k."""
        rewards = self._gather(self._rewards).flatten()
        return {
            "reward_mean": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=0)),
            "top_k_mean": float(self.epoch_top_k().mean()),
        }

    def epoch_top_k(self) -> Float[Tensor, " images"]:
        """Every top-k value chosen in this epoch so far, on the host."""
        return self._gather(self._top_k).flatten()

    def epoch_top_k_counts(self) -> list[int]:
        """How often each of the K values was chosen in this epoch so far; a value between two counts for the nearer."""
        nearest = (self.epoch_top_k()[:, None] - self.values).abs().argmin(1)
        return torch.bincount(nearest, minlength=len(self.values)).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes. A batch that waits for its action is not part of it: the next observation draws it again."""
        state = self.require_training().state_dict()
        if self._decision is not None:
            state["generators"] = self._undrawn
        for name, values in (("rewards", self._rewards), ("top_k", self._top_k)):
            state[name] = self._gather(values)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        training = self.require_training()
        training.load_state_dict(state)
        ranks = training.ranks
        for own, values in ((self._rewards, state["rewards"]), (self._top_k, state["top_k"])):
            part = values[ranks.rank] if len(values) == ranks.size else values.flatten().chunk(ranks.size)[ranks.rank]
            own[:] = [part.to(training.device)]
        self._decision = self.outcome = None
        self._loaded = True

    def _gather(self, values: list[Tensor]) -> Float[Tensor, "rank images"]:
        return self.require_training().ranks.gather(torch.cat(values) if values else torch.empty(0))

    def require_training(self) -> Training:
        """The training in progress; RuntimeError before the first reset."""
        if self.training is None:
            raise RuntimeError("reset() must be called before anything else")
        return self.training
