"""A run's settings: what the method, the algorithm and the data settle, and whether all of it goes together. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from rlmix.common.catalogue import Card
from rlmix.common.names import check_name
from rlmix.common.registry import load_attribute
from rlmix.config import Config
from rlmix.experiments.families import hyperparameter_defaults, known, model_names
from rlmix.recipes import GIVEN, data_recipe, settled_data

NEEDED = ("top_k", "policy", "top_k_weights")
"""Options that go with the policies that read them, and only with these."""


def method_names() -> list[str]:
    """Every registered method: the policies in the environment, and those that need none."""
    return [*known("policies"), *known("methods")]


def is_policy(method: str) -> bool:
    """Whether a method is a policy in the environment."""
    return method in known("policies")


def policy_card(method: str) -> Card:
    """What is known of a method that is a policy."""
    return known("policies")[method]


def learns(method: str) -> bool:
    """Whether an agent learns under a method."""
    return is_policy(method) and bool(policy_card(method).traits.get("learns"))


def algorithm_traits(algorithm: str) -> Mapping[str, Any]:
    """Traits of a learning algorithm, as of :data:`rlmix.agents.algorithms.ALGORITHMS`."""
    if ":" in algorithm:
        traits: Mapping[str, Any] = getattr(load_attribute("algorithm", algorithm), "traits", {})
        return traits
    return known("algorithms")[algorithm].traits


def leaves_policy(config: Config) -> bool:
    """Whether a run leaves a policy that looks at images."""
    return learns(config.run.method) and bool(algorithm_traits(config.agent.algorithm).get("layers"))


def default_maps(config: Config) -> str:
    """Where a run's maps come from unless that is said.

    Where its policy's card says; but exact ones with an imagefolder, whose kept maps may be larger than the memory, and on a frozen
    classifier, where nothing is trained that they could save.
    """
    method = config.run.method
    if not is_policy(method) or config.on_folder or config.model.freeze_from is not None:
        return config.map_source
    return str(policy_card(method).traits.get("maps", config.map_source))


def check_method(method: str, option: str = "method") -> None:
    """Raise ValueError where there is no such method; ``option`` is what named it."""
    if ":" in method:
        load_attribute(option, method)
    else:
        check_name(option, method, method_names())


def check_model(model: str, option: str = "model") -> None:
    """Raise ValueError where there is no such model; those of timm and of one's own are looked for when they are built."""
    if model != GIVEN and (":" not in model or model.startswith("torchvision:")):
        check_name(option, model.removeprefix("torchvision:"), model_names(), "rlmix list models")


def has_alpha(method: str) -> bool:
    """Whether a method draws from a distribution that ``alpha`` shapes."""
    return is_policy(method) or "alpha" in hyperparameter_defaults(method)


def check_names(config: Config) -> None:
    """Raise ValueError where the method, the algorithm, the data or the model are unknown: what else is read depends on them."""
    check_method(config.run.method)
    algorithm = config.agent.algorithm
    if ":" in algorithm:
        load_attribute("algorithm", algorithm)
    else:
        check_name("algorithm", algorithm, known("algorithms"))
    data_recipe(settled_data(config.data.name))
    if config.model.name is not None:
        check_model(config.model.name)


def settled(config: Config) -> Config:
    """``config`` as it is run: with the data set's recipe, and what the method settles.

    Raises:
        ValueError: If a value is out of range, or two do not go together.
        FileNotFoundError: If ``freeze_from`` is no run's folder.
    """
    check_names(config)
    run, method = config.run, config.run.method
    for option in NEEDED:
        value, readers = getattr(run, option), [name for name, card in known("policies").items() if option in card.reads]
        if (method in readers) != (value is not None):
            raise ValueError(
                f"{option} must be given with method {' or '.join(readers)}, and only then, got {value} with {method}"
            )
    if config.model.freeze_from is not None and not is_policy(method):
        raise ValueError(f"freeze_from must go with a policy ({', '.join(known('policies'))}), got method {method}")
    if config.mixing.alpha is not None and not has_alpha(method):
        raise ValueError(f"alpha must be left out with method {method}, which has none, got {config.mixing.alpha}")
    config = config.resolved()
    config = config.changed(saliency_mode=config.mixing.saliency_mode or default_maps(config))
    given = dict(config.mixing.hyperparameters)
    if not is_policy(method):
        if given:
            from rlmix.mixing.registry import read_hyperparameters  # of the types that the method's class has

            given = read_hyperparameters(method, given)
        return config.changed(num_patches=config.mask_patches, mixing=given)
    if given:
        name = next(iter(given))
        raise ValueError(
            f"mixing.{name} must be left out with method {method}, whose options have no mixing.: it would do nothing"
        )
    fixed = policy_card(method).traits.get("patches")
    if fixed is not None and config.mixing.num_patches not in (None, fixed):
        raise ValueError(
            f"num_patches must be left out with method {method}, R-Mix at {fixed[0]} patches, got {config.mixing.num_patches}"
        )
    seen = {"observation": config.env.observation or "pair", "credit": config.env.credit or "pair"}
    alpha = config.policy_alpha if config.on_folder else config.mixing.alpha
    return config.changed(num_patches=fixed or config.mask_patches, alpha=alpha, **seen)
