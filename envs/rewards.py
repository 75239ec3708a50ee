"""The family of rewards: what a mixture earns. docs/rewards.md tells every reward's reason and source.

A reward of maps is a function of what it names: ``clean`` and ``mixed`` maps (B, H, W), each image's ``partner`` (B,) and its ``share``
(B,) of the target, the mixtures' ``logits`` and ``targets`` (B, N), or all of it as ``reaction``. It gives one number an image. One that
asks the classifier is a context around its step: a generator function of ``training``, which yields the judge.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.common.registry import Registry
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.maps.gradient import gradient_map
from rlmix.mixing.core import Mixed
from rlmix.training.trainer import Training

AGENT_PATCHES = 8
"""Patches per side of the map that an agent sees and is rewarded on (the paper's)."""


@dataclass(frozen=True)
class Reaction:
    """How a classifier reacts to a mixed batch."""

    clean: Float[Tensor, "batch height width"]
    """Saliency maps of the clean images."""
    gradient: Float[Tensor, "batch channel height width"] | None
    """Of the step's loss with respect to the mixed images; None where the reward does not read it."""
    partner: Int[Tensor, " batch"]
    share: Float[Tensor, " batch"]
    """Each image's own part of its mixed target."""
    logits: Float[Tensor, "batch classes"] | None = None
    """Of the mixed images, as the step has found them; None in a loop of one's own, which does not tell."""
    targets: Float[Tensor, "batch classes"] | None = None

    @cached_property
    def mixed(self) -> Float[Tensor, "batch height width"]:
        """Input-gradient maps of the mixed images."""
        if self.gradient is None:
            raise ValueError("gradient must be kept for a reward that compares maps, got None")
        return gradient_map(self.gradient)


Judge = Callable[[Mixed, Reaction], Tensor]
"""Says what each image earns, once the step has been taken."""
REWARDS: Registry[Callable[..., Any]] = Registry(
    "reward", homes=tuple(f"rlmix.envs.{kind}_rewards" for kind in ("map", "difficulty", "classifier"))
)
"""Traits: ``updating``, for those that need a step which changes the classifier; a frozen one has no such step. ``average`` and
``validation``, for those that need a moving average of its weights, or a validation split."""
UNMEASURED = "none"
_OF_STEP = ("logits", "targets")
_OF_REACTION = ("clean", "mixed", "partner", "share", *_OF_STEP, "reaction")


@dataclass(frozen=True)
class Reward:
    """A reward, ready for the step: enter it before, judge after, leave."""

    name: str
    thing: Callable[..., Any]
    parameters: tuple[str, ...]
    """What it names."""
    updating: bool = False
    """Whether it needs the classifier to change."""
    average: bool = False
    """Whether it needs a moving average of the classifier's weights."""
    validation: bool = False
    """Whether it needs a validation split."""

    def check(self, config: Config, data: Dataset) -> None:
        """Raise ValueError where the training so configured, on this data, has not got what the reward needs."""
        frozen, accumulation = config.model.freeze_from is not None, config.optim.accumulation
        if frozen and self.updating:
            raise ValueError(f"reward must be one that needs no change of a frozen classifier, got {self.name}")
        if self.average and (config.optim.ema is None or frozen):
            raise ValueError(
                f"reward {self.name} must go with ema, a moving average of a classifier's weights that changes, such as 0.99"
            )
        if self.validation and "val" not in data.measured:
            raise ValueError(f"reward {self.name} must have a validation split: give val_fraction, such as 0.1, or data with one")
        if accumulation > 1 and self.updating:
            raise ValueError(
                f"accumulation must be 1 with reward {self.name}, which looks at what each batch's own step does, got {accumulation}"
            )

    @property
    def needs_gradient(self) -> bool:
        """Whether it reads the mixed images' gradient."""
        return bool({"mixed", "reaction"} & set(self.parameters))

    def around(self, training: Training) -> AbstractContextManager[Judge]:
        """What is entered before one step of the classifier and left after it; it gives the judge."""
        if not self.of_maps:
            context: AbstractContextManager[Judge] = self.thing(training)
            return context
        return nullcontext(self.judge)

    @property
    def of_maps(self) -> bool:
        """Whether it asks nothing but the reaction: no training, and no context around its step."""
        return self.parameters != ("training",)

    @property
    def of_gradients(self) -> bool:
        """Whether the clean and the mixed images' gradients, and how they were mixed, are all that it asks."""
        return self.of_maps and not {*_OF_STEP} & {*self.parameters}

    def judge(self, mixed: Mixed, reaction: Reaction) -> Float[Tensor, " batch"]:
        """What each image earns, of a reward of maps.

        Raises:
            ValueError: If it gives other than one number an image.
        """
        known = {name: reaction if name == "reaction" else getattr(reaction, name) for name in self.parameters}
        rewards: Any = self.thing(**known)
        if not isinstance(rewards, Tensor) or rewards.shape != reaction.share.shape:
            found = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
            raise ValueError(f"reward {self.name} must give one number an image, {tuple(reaction.share.shape)}, got {found}")
        return rewards.float()


def build_reward(name: str) -> Reward:
    """The reward called ``name``.

    Raises:
        ValueError: If there is none, or it names what nobody knows.
    """
    entry = REWARDS.entry(name)
    if not callable(entry.thing):
        raise ValueError(f"reward {name} must be a function, got {type(entry.thing).__name__}")
    parameters = tuple(inspect.signature(entry.thing).parameters)
    unknown = [parameter for parameter in parameters if parameter not in _OF_REACTION]
    if parameters != ("training",) and (unknown or not parameters):
        raise ValueError(
            f"reward {name} must be a function of {', '.join(_OF_REACTION)}, or of training alone, got {', '.join(parameters)}"
        )
    traits = {trait: bool(entry.traits.get(trait)) for trait in ("updating", "average", "validation")}
    return Reward(name, entry.thing, parameters, **traits)


@REWARDS.register(UNMEASURED)
def unmeasured(share: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Nothing, where no agent learns: an input gradient less in every step."""
    return torch.zeros_like(share)
