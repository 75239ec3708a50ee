"""The decision process that both environment forms show: a classifier trains, and someone chooses how each batch is mixed."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.common.seeding import derive
from rlmix.common.transfer import to_device
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.data.registry import load_data
from rlmix.envs.credit import share_credit
from rlmix.envs.isolation import isolated
from rlmix.envs.map_rewards import rarity
from rlmix.envs.record import EpochRecord
from rlmix.envs.rewards import AGENT_PATCHES, UNMEASURED, Reaction, build_reward
from rlmix.maps.approximate import SaliencySource
from rlmix.maps.composition import Pairs
from rlmix.maps.gradient import Saliency, patch_saliency
from rlmix.maps.patches import check_patches, pixel_share
from rlmix.mixing.actions import Action, Weighed, action_table, arrange, as_action, check_finest, weigh
from rlmix.mixing.core import Mixed, Pairing, blend, check_mixing, sample_center, sample_pairing, soft_targets, top_k_values
from rlmix.option_groups import Unseeded
from rlmix.training.guard import finite_saliency
from rlmix.training.trainer import Batch, Training


@dataclass(frozen=True)
class Decision:
    """A batch that waits to be mixed: what is seen, and what chance has settled already."""

    batch: Batch
    saliency: Saliency
    pairing: Pairing
    progress: float
    """Part of the training budget that has been used, in [0, 1)."""
    sound: Bool[Tensor, ""]
    """Whether all of the saliency pass was finite; see :func:`rlmix.training.guard.finite_saliency` for what is shown where not."""
    center: Float[Tensor, "batch 2"] | None = None
    """Where each image's box would lie, row and column as parts of the sides; drawn where one may be chosen."""

    @cached_property
    def patches(self) -> Float[Tensor, "batch 8 8"]:
        """The pooled saliency map that the agent sees."""
        return patch_saliency(self.saliency.map, AGENT_PATCHES)

    @cached_property
    def host(self) -> Int[Tensor, " batch"]:
        """Index of the image in whose mixture each image is the partner, as drawn."""
        return self.pairing.partner.argsort()


@dataclass(frozen=True)
class Outcome:
    """What a decision led to; for pictures."""

    decision: Decision
    pairing: Pairing
    """With the partners that the batch was mixed with."""
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
        listeners: Sources of maps that are told what every step has found, beside the training's own.
        outcome: The last decision and what it led to.
        values: The top-k values.
        actions: The table of all that an agent may choose for an image.
        boxes: Whether boxes are among what may be chosen, and their centres drawn.
        unseeded: Whether the configuration came without a seed; it is 0 here, and an environment draws another.
    """

    @isolated()
    def __init__(self, config: Config, data: Dataset | None = None) -> None:
        self.unseeded = isinstance(config.run.seed, Unseeded)
        config = config.resolved()
        self.num_patches = config.mask_patches
        self.alpha = config.policy_alpha
        check_mixing(config.mixing.num_top_k, self.num_patches, self.alpha, config.mixing.rule)
        self.config = config
        self.data = load_data(config) if data is None else data
        height, width = self.data.image_size
        if min(height, width) < AGENT_PATCHES:
            raise ValueError(
                f"images must have at least {AGENT_PATCHES} pixels a side, as the agent's map has, got {height}x{width}"
            )
        check_patches(self.num_patches, self.data.image_size)
        self.values = top_k_values(config.mixing.num_top_k)
        self.actions = action_table(config.env.action, config.mixing.num_top_k)
        self.boxes = False
        self.offer(self.actions)
        self._reward = build_reward(config.env.reward)
        self._reward.check(config, self.data)
        self.training: Training | None = None
        self.outcome: Outcome | None = None
        self.on_epoch_end: Callable[[Training], None] = lambda training: None
        self.listeners: list[SaliencySource] = []
        self._decision: Decision | None = None
        self._record = EpochRecord(measured=config.env.reward != UNMEASURED)
        self._undrawn: list[Tensor] = []
        self._loaded = False

    def offer(self, actions: Action | None) -> None:
        """Be ready for choices of another table than the own one, such as a policy's that learned elsewhere.

        Args:
            actions: What may be chosen; None where that is top-k values alone.

        Raises:
            ValueError: If there are boxes in it, which do not go with these masks.
        """
        if actions is not None and actions.box is not None:
            check_finest(self.num_patches)
            self.boxes = True

    @isolated()
    def reset(self, seed: int | None = None) -> Training:
        """Go to the start of an epoch.

        With a seed, or first of all, or when the training budget is used up: the first epoch of a new classifier. Otherwise the
        training goes on with its next epoch; what is left of an epoch in progress is given up, and the schedule moves past it. The
        first reset after :meth:`load_state_dict` goes on within the epoch that was loaded.
        """
        loaded, self._loaded = self._loaded, False
        if loaded and seed is None and not self.require_training().mixing_finished:
            return self.require_training()
        if self.training is not None and seed is None and not self.training.mixing_finished:
            if self.training.trained > 0 and not self.training.at_epoch_end:
                self.training.skip_epoch()
                self._decision = None
            if not self.training.mixing_finished:
                return self.training
        if seed is not None:
            self.config = self.config.changed(seed=seed)
        elif self.training is not None:
            self.config = self.config.changed(seed=derive(self.config.run.seed, "next classifier") % 2**31)
        self.training = Training(self.config, self.data)
        self.data = self.training.data  # on the device from now on
        self._decision = self.outcome = None
        return self.training

    def go_back_to(self, training: Training) -> None:
        """Show ``training`` again, of which no batch waits: what is left of it when :meth:`reset` has begun another."""
        self.training, self._decision = training, None

    @isolated()
    def observe(self) -> Decision:
        """The batch to decide about next. The saliency pass happens here, once a batch."""
        if self._decision is None:
            training = self.require_training()
            if training.mixing_finished:
                raise RuntimeError("reset() must be called after the end of the training, got another step")
            training.begin_epoch()
            self._undrawn = training.generator_states()
            batch = training.next_batch()
            saliency, sound = finite_saliency(training.saliency(batch))
            pairing = sample_pairing(training.share, self.num_patches, self.alpha, training.batch_generator())
            pairing = pairing._replace(partner=to_device(pairing.partner, training.device))
            center = None
            if self.boxes:
                center = to_device(sample_center(training.share, training.batch_generator()), training.device)
            self._decision = Decision(batch, saliency, pairing, training.global_step / training.num_steps, sound, center)
        return self._decision

    @isolated()
    def act(self, action: Float[Tensor, " batch"] | Action) -> Float[Tensor, " batch"]:
        """Mix the batch by each image's top-k value in [0, 1), or all that is chosen, train on it, and give each image its reward.

        The reward compares the gradient of the observation's pass with that of the training step's own backward pass. In a
        step that is not finite it is 0, and counts for nothing in :meth:`epoch_metrics`.
        """
        training, decision = self.require_training(), self.observe()
        chosen = as_action(action).to(training.device)
        with self._reward.around(training) as judge:
            pairing, learners = arrange(decision.pairing, chosen, decision.saliency.map), self._learners()
            partner = pairing.partner
            mask, weights = self._weigh(decision, chosen, pairing)
            mixed, share = self._mix(decision, weights, partner)
            gradient: Any = training.step(mixed, self._reward.needs_gradient or bool(learners), decision.sound)
            for source in learners:
                source.learn(training.evidence(gradient, Pairs(weights, partner)), training.order.moment)
            rewards = judge(mixed, Reaction(decision.saliency.map, gradient, partner, share, training.last_logits, mixed.targets))
        self.outcome, self._decision = Outcome(decision, pairing, mask, chosen.top_k, mixed), None
        if training.trained == 1:
            self._record.begin()
        rewards = torch.where(training.was_finite, rewards, float("nan"))
        self._record.add(rewards, chosen)
        rewards = torch.where(rewards.isfinite(), rewards, 0.0)
        rewards = share_credit(rewards, rewards[partner.argsort()], self.credit)
        if self.config.env.diversity:
            rewards = rewards + self.config.env.diversity * self._rarity(chosen)
        if training.at_epoch_end:
            self.on_epoch_end(training)
        return rewards

    @isolated()
    def try_out(
        self, action: Float[Tensor, " batch"] | Action, partner_top_k: Float[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """What each image of the batch that waits would earn by itself, before credit is shared. Nothing changes.

        Args:
            action: Each image's own choice.
            partner_top_k: The choice of each image's partner where it is not what ``action`` says of it: then every mixture is tried
                as if it were alone, which the choices of no one batch could bring about.

        Raises:
            ValueError: If the reward is one that needs the classifier to change.
        """
        if self._reward.updating:
            raise ValueError(
                f"reward must be one that needs no change of the classifier to try choices out, got {self.config.env.reward}"
            )
        training, decision = self.require_training(), self.observe()
        theirs = None if partner_top_k is None else partner_top_k.to(training.device)
        chosen = as_action(action).to(training.device)
        pairing = arrange(decision.pairing, chosen, decision.saliency.map)
        partner = pairing.partner
        weights = self._weigh(decision, chosen, pairing, theirs).weights
        with self._reward.around(training) as judge:
            mixed, share = self._mix(decision, weights, partner)
            look = training.look(mixed)
            seen = Reaction(decision.saliency.map, look.gradient, partner, share, look.logits, mixed.targets)
            return judge(mixed, seen)

    def _weigh(self, decision: Decision, action: Action, pairing: Pairing, partner_top_k: Tensor | None = None) -> Weighed:
        if action.box is not None and decision.center is None:
            raise ValueError(
                f"action must be one with boxes, such as top_k_cut, where a box is chosen, got {self.config.env.action}"
            )
        map, rule = decision.saliency.map, self.config.mixing.rule
        return weigh(map, action, pairing, rule, partner_top_k, decision.center)

    def _learners(self) -> list[SaliencySource]:
        """Who is told what a step has found."""
        own = self.require_training().saliency_source
        return [*([own] if own.learns else []), *self.listeners]

    def _mix(self, decision: Decision, weights: Tensor, partner: Tensor) -> tuple[Mixed, Tensor]:
        """The mixed batch, and the share of its target that each image has."""
        images, labels = decision.batch
        targets = soft_targets(self.require_training().targets(labels), self.data.num_classes)
        return blend(images, targets, weights, partner), pixel_share(weights, images.shape[2:])

    def _rarity(self, chosen: Action) -> Tensor:
        """Of each whole choice; of bare top-k values, which may lie between two of the K, that of the nearest."""
        return rarity(chosen.rows, len(self.actions)) if chosen.others else rarity(self._nearest(chosen.top_k), len(self.values))

    def _nearest(self, top_k: Tensor) -> Tensor:
        """Index of the nearest of the K values."""
        return (top_k[:, None] - to_device(self.values, top_k.device)).abs().argmin(1)

    def run_epoch(
        self,
        policy: Callable[[Decision], Tensor | Action],
        on_step: Callable[[Any, Tensor], None] = lambda action, rewards: None,
    ) -> None:
        """What is left of an epoch under a policy that maps a decision to an action, without a round trip through NumPy."""
        training = self.require_training()
        for _ in range(training.steps_left):
            action = policy(self.observe())
            on_step(action, self.act(action))

    @isolated()
    def epoch_metrics(self) -> dict[str, float]:
        """Means over this epoch's images so far of what was chosen, and of the reward before credit is shared, where one is measured."""
        return self._record.means(self.ranks)

    @isolated()
    def step_metrics(self, steps: int) -> dict[str, float]:
        """Over the images of this epoch's last ``steps``: mean ``reward``, where one is measured, and mean ``top_k``."""
        return self._record.last_means(steps, self.ranks)

    def epoch_top_k(self) -> Float[Tensor, " images"]:
        """Every top-k value chosen in this epoch so far, on the host."""
        return self._record.top_k(self.ranks)

    def epoch_top_k_counts(self) -> list[int]:
        """How often each of the K values was chosen in this epoch so far; a value between two counts for the nearer.

        A box, and an image that is not mixed, carry 0 in place of a value, and count for that.
        """
        return torch.bincount(self._nearest(self.epoch_top_k()), minlength=len(self.values)).tolist()

    @isolated()
    def state_dict(self) -> dict[str, Any]:
        """Everything that changes. A batch that waits for its action is not part of it: the next observation draws it again."""
        state = self.require_training().state_dict()
        if self._decision is not None:
            state["generators"] = self._undrawn
        return state | self._record.state_dict(self.ranks)

    @isolated()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken; nothing of ``state`` is shared."""
        training, state = self.require_training(), copy.deepcopy(state)
        training.load_state_dict(state)
        self._record.load_state_dict(state, training.ranks, training.device)
        self._decision = self.outcome = None
        self._loaded = True

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: what :meth:`__init__` takes, and everything that changes; who listens to ``on_epoch_end`` is not copied."""
        state = None if self.training is None else self.state_dict()
        more = {"outcome": self.outcome, "loaded": self._loaded, "waiting": self._decision is not None}
        more |= {"unseeded": self.unseeded, "boxes": self.boxes}
        return {"config": self.config, "data": self.data, "state": state} | more

    @isolated()
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"], state["data"])  # type: ignore[misc]
        self.boxes = state["boxes"]
        if state["state"] is not None:
            self.training = Training(self.config, self.data)
            self.data = self.training.data
            self.load_state_dict(state["state"])
        if state["waiting"]:
            self.observe()
        self.outcome, self._loaded, self.unseeded = state["outcome"], state["loaded"], state["unseeded"]

    @property
    def observation(self) -> str:
        """Name of what is seen of an image; the paper's where the configuration names none."""
        return self.config.env.observation or "paper"

    @property
    def credit(self) -> str:
        """Name of who earns a reward; the image itself where the configuration names none."""
        return self.config.env.credit or "own"

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.require_training().ranks

    def require_training(self) -> Training:
        """The training in progress; RuntimeError before the first reset."""
        if self.training is None:
            raise RuntimeError("reset() must be called before anything else")
        return self.training
