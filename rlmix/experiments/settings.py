"""A run's settings: what the method, the algorithm and the data settle, and whether all of it goes together."""

from typing import Any

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.policies import POLICIES
from rlmix.common.names import check_name
from rlmix.common.registry import Entry
from rlmix.config import Config
from rlmix.mixing.registry import METHODS, hyperparameters, read_hyperparameters
from rlmix.recipes import data_recipe, settled_data


def method_names() -> list[str]:
    """Every registered method: the policies in the environment, and those that need none."""
    return [*POLICIES, *METHODS]


def is_policy(method: str) -> bool:
    """Whether a method is a policy in the environment."""
    return method in POLICIES


def learns(method: str) -> bool:
    """Whether an agent learns under a method."""
    return is_policy(method) and bool(POLICIES.entry(method).traits.get("learns"))


def method_entry(method: str) -> Entry[Any]:
    """What is known of a method; ValueError where there is none."""
    if not is_policy(method) and ":" not in method:
        check_name("method", method, method_names())
    return POLICIES.entry(method) if is_policy(method) else METHODS.entry(method)


def has_alpha(method: str) -> bool:
    """Whether a method draws from a distribution that ``alpha`` shapes."""
    return is_policy(method) or "alpha" in hyperparameters(method)


def check_names(config: Config) -> None:
    """Raise ValueError where the method, the algorithm or the data are unknown: what else is read depends on them."""
    method_entry(config.run.method)
    ALGORITHMS.entry(config.agent.algorithm)
    data_recipe(settled_data(config.data.name))


def settled(config: Config) -> Config:
    """``config`` as it is run: with the data set's recipe, and what the method settles.

    Raises:
        ValueError: If a value is out of range, or two do not go together.
        FileNotFoundError: If ``freeze_from`` is no run's folder.
    """
    check_names(config)
    run, method = config.run, config.run.method
    for option in ("top_k", "policy", "top_k_weights"):
        value, readers = getattr(run, option), POLICIES.readers(option)
        if (method in readers) != (value is not None):
            raise ValueError(
                f"{option} must be given with method {' or '.join(readers)}, and only then, got {value} with {method}"
            )
    if config.model.freeze_from is not None and not is_policy(method):
        raise ValueError(f"freeze_from must go with a policy ({', '.join(POLICIES)}), got method {method}")
    if config.mixing.alpha is not None and not has_alpha(method):
        raise ValueError(f"alpha must be left out with method {method}, which has none, got {config.mixing.alpha}")
    config = config.resolved()
    given = dict(config.mixing.hyperparameters)
    if not is_policy(method):
        return config.changed(num_patches=config.mask_patches, mixing=read_hyperparameters(method, given))
    if given:
        name = next(iter(given))
        raise ValueError(
            f"mixing.{name} must be left out with method {method}, whose options have no mixing.: it would do nothing"
        )
    fixed = POLICIES.entry(method).traits.get("patches")
    if fixed is not None and config.mixing.num_patches not in (None, fixed):
        raise ValueError(
            f"num_patches must be left out with method {method}, R-Mix at {fixed[0]} patches, got {config.mixing.num_patches}"
        )
    seen = {"observation": config.env.observation or "pair", "credit": config.env.credit or "pair"}
    alpha = config.policy_alpha if config.on_folder else config.mixing.alpha
    return config.changed(num_patches=fixed or config.mask_patches, alpha=alpha, **seen)
