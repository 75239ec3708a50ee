"""Policies that do not learn: the fixed-random one, which is R-Mix, and the constant one. They stay in torch."""

import math
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.common.registry import Registry, load_attribute
from rlmix.common.seeding import stream
from rlmix.config import Config
from rlmix.envs.process import Decision
from rlmix.mixing.actions import Action, action_table, as_action, check_action
from rlmix.mixing.core import sample_top_k, top_k_values


class Policy(Protocol):
    """Chooses a top-k value for each image of a batch, or more."""

    entropy: float
    """Of the choice for one image, in nats."""

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"] | Action: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


POLICIES: Registry[Any] = Registry("method", homes=("rlmix.agents.algorithms", "rlmix.agents.policies", "rlmix.agents.learned"))
"""Methods that are a policy in the environment: classes with ``from_config(config, ranks)``. Traits: ``learns``, for the one that does,
which is a function of the environment and the configuration; ``patches``, what the masks always are; ``maps``, where maps come from
unless that is said."""


class FunctionPolicy:
    """Somebody's function of a decision, which has no state."""

    entropy = 0.0

    def __init__(self, name: str, choose: Callable[[Decision], Tensor | Action]) -> None:
        self.name, self.choose = name, choose

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"] | Action:
        given: Any = self.choose(decision)
        shape = (len(decision.patches),)
        columns = {"top-k": given.top_k, **given.others} if isinstance(given, Action) else {"top-k": given}
        for column, values in columns.items():
            if not isinstance(values, Tensor) or values.shape != shape:
                found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise ValueError(f"policy {self.name} must give one {column} value an image, {shape}, got {found}")
        action = as_action(given)
        if action.top_k.device.type == "cpu":  # elsewhere it would wait for the device
            check_action(action, f"policy {self.name}")
        return given if isinstance(given, Action) else action.top_k.float()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def own_policy(name: str, config: Config, ranks: Ranks | None = None) -> Policy:
    """The policy that ``module:attribute`` names.

    Args:
        name: A class with ``from_config(config, ranks)`` that gives a :class:`Policy`, or a function of a
            :class:`~rlmix.envs.process.Decision` that gives top-k values (B,).
        config: The run's.
        ranks: The processes that train together.

    Raises:
        ValueError: If it is neither.
    """
    known = load_attribute("policy", name)
    if hasattr(known, "from_config"):
        policy: Policy = known.from_config(config, ranks)
        return policy
    if not callable(known):
        raise ValueError(f"policy {name} must be a function of a decision, or have from_config, got {type(known).__name__}")
    return FunctionPolicy(name, known)


@POLICIES.register("rmix", maps="recycled")
class FixedRandomPolicy:
    """R-Mix: any of the top-k values, all equally likely.

    Args:
        num_top_k: How many there are.
        seed: Of its own generator.
        ranks: Each of them draws for the whole batch and takes its share.
    """

    def __init__(self, num_top_k: int, seed: int, ranks: Ranks | None = None) -> None:
        self.num_top_k, self.ranks = num_top_k, ranks or Ranks()
        self.generator = stream(seed, "policy")
        self.entropy = float(torch.tensor(float(num_top_k)).log())

    @classmethod
    def from_config(cls, config: Config, ranks: Ranks | None = None) -> Self:
        """With the configuration's top-k values and seed."""
        return cls(config.mixing.num_top_k, config.run.seed, ranks)

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"]:
        batch_size = len(decision.patches) * self.ranks.size
        return self.ranks.share(sample_top_k(batch_size, self.num_top_k, self.generator))

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


@POLICIES.register("rmix-p8", patches=(8,), maps="recycled")
class PaperPatchesPolicy(FixedRandomPolicy):
    """R-Mix at the 8 patches a side that the paper gave its agent."""


@POLICIES.register("coin")
class CoinPolicy(FixedRandomPolicy):
    """A fair coin an image, between the smallest and the largest of the top-k values: all of it is salient, or next to nothing."""

    def __init__(self, num_top_k: int, seed: int, ranks: Ranks | None = None) -> None:
        super().__init__(num_top_k, seed, ranks)
        self.largest = top_k_values(num_top_k)[-1]
        self.entropy = math.log(2) if num_top_k > 1 else 0.0

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"]:
        batch_size = len(decision.patches) * self.ranks.size
        return self.ranks.share(self.largest * torch.randint(2, (batch_size,), generator=self.generator))


@POLICIES.register("constant", reads=("top_k",))
class ConstantPolicy:
    """The same top-k value for every image.

    Args:
        top_k: In [0, 1); 0 is plain Input Mix-up.
    """

    entropy = 0.0

    def __init__(self, top_k: float) -> None:
        if not 0 <= top_k < 1:
            raise ValueError(f"top_k must be in [0, 1), got {top_k}")
        self.top_k = top_k

    @classmethod
    def from_config(cls, config: Config, ranks: Ranks | None = None) -> Self:
        """That of ``config.run.top_k``."""
        if config.run.top_k is None:
            raise ValueError("top_k must be given with method constant, got None")
        return cls(config.run.top_k)

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"]:
        return torch.full((len(decision.patches),), self.top_k)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


@POLICIES.register("mixture", reads=("top_k_weights",))
class MixturePolicy(FixedRandomPolicy):
    """Control: any of the choices, each with a probability of its own, whatever the image.

    Args:
        probabilities: Of the rows of ``actions``, which are top-k values from the least to the greatest, at least 0, in any unit.
        seed: As of :class:`FixedRandomPolicy`.
        ranks: Likewise.
        actions: What there is to choose from; so many top-k values where not given.
    """

    def __init__(
        self, probabilities: tuple[float, ...], seed: int, ranks: Ranks | None = None, actions: Action | None = None
    ) -> None:
        super().__init__(len(probabilities), seed, ranks)
        self.actions = action_table("top_k", len(probabilities)) if actions is None else actions
        self.probabilities = torch.tensor(probabilities, dtype=torch.float32)
        if not bool((self.probabilities >= 0).all()) or not float(self.probabilities.sum()) > 0:
            raise ValueError(f"top_k_weights must be numbers of at least 0, not all 0, got {probabilities}")
        self.probabilities /= self.probabilities.sum()
        self.entropy = float(torch.special.entr(self.probabilities).sum())

    @classmethod
    def from_config(cls, config: Config, ranks: Ranks | None = None) -> Self:
        """Those of ``config.run.top_k_weights``."""
        given, actions = config.run.top_k_weights, action_table(config.env.action, config.mixing.num_top_k)
        if given is None or len(given) != len(actions):
            what = "top-k value" if config.env.action == "top_k" else f"choice of action {config.env.action}"
            raise ValueError(f"top_k_weights must be {len(actions)} numbers with method mixture, one a {what}, got {given}")
        return cls(given, config.run.seed, ranks, actions)

    def __call__(self, decision: Decision) -> Float[Tensor, " batch"] | Action:  # type: ignore[override]
        batch_size = len(decision.patches) * self.ranks.size
        index = torch.multinomial(self.probabilities, batch_size, replacement=True, generator=self.generator)
        return self.actions[self.ranks.share(index)].simplest
