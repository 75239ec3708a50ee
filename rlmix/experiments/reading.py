"""Options as they are typed. Whoever types one that the run does not read is told, for it would do nothing."""

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from rlmix.common.registry import load_attribute
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.experiments.families import hyperparameter_defaults, known
from rlmix.experiments.options import UsageError, parse, typed_options
from rlmix.experiments.settings import algorithm_traits, check_names, is_policy, learns
from rlmix.recipes import is_own, settled_data


class Condition(NamedTuple):
    """When some options are read."""

    options: tuple[str, ...]
    holds: Callable[[Config], bool]
    where: Callable[[Config], str]
    """What they were typed with, where it does not hold, and why that does not read them."""


def _method(why: str) -> Callable[[Config], str]:
    return lambda config: f"--method {config.run.method}, {why}"


def _kind(config: Config) -> str:
    name = settled_data(config.data.name)
    return "own" if is_own(name) else name.partition(":")[0]


def _takes_maps(method: str) -> bool:
    """Whether a method mixes by whatever maps a training has."""
    if ":" in method:
        return hasattr(load_attribute("method", method), "mix_by")
    return is_policy(method) or method in readers("methods", "saliency_mode")


def _clean_lam(config: Config) -> float:
    """Of comixup; what is none is refused by the method itself."""
    with contextlib.suppress(TypeError, ValueError):
        return float(config.mixing.hyperparameters.get("clean_lam", 1.0))
    return 1.0


CONDITIONS = (
    Condition(("image_fit",), lambda config: config.data.image_size is not None, lambda config: "images of their own size (--image-size)"),
    Condition(("num_top_k", "num_patches", "rule", "reward"), lambda config: is_policy(config.run.method),
              _method("which is no policy of the environment")),
    Condition(("saliency_mode",), lambda config: _takes_maps(config.run.method), _method("which mixes by no map of the classifier's")),
    Condition(("saliency_mode",), lambda config: config.run.method != "comixup" or not _clean_lam(config),
              _method("whose clean loss has its pass, and the maps with it, unless --mixing.clean-lam is 0")),
    Condition(("action",), lambda config: learns(config.run.method) or config.run.method == "mixture" or ":" in (config.run.policy or ""),
              _method("which chooses nothing beside what it does anyway")),
    Condition(("reward", "credit", "observation", "diversity"),
              lambda config: not (learns(config.run.method) and algorithm_traits(config.agent.algorithm).get("own_reward")),
              lambda config: f"--algorithm {config.agent.algorithm}, which has a reward of its own"),
    Condition(("num_patches",), lambda config: config.env.action != "top_k_patches",
              lambda config: "--action top_k_patches, which chooses them"),
    Condition(("alpha",), lambda config: config.env.action != "top_k_lam", lambda config: "--action top_k_lam, which chooses lam"),
    Condition(("stages",), lambda config: ":" in config.run.method or config.run.method in readers("methods", "stages"),
              _method("which mixes no features")),
    Condition(("mixing_seed",), lambda config: config.run.method != "vanilla", _method("which draws nothing")),
    Condition(("mix_until",), lambda config: config.run.method != "vanilla" and config.model.freeze_from is None,
              lambda config: "--method vanilla" if config.run.method == "vanilla" else "--freeze-from, whose classifier is not updated"),
    Condition(("patience",), lambda config: config.model.freeze_from is None,
              lambda config: "--freeze-from, whose classifier gets no better"),
    Condition(("schedule", "optimizer", "learning_rate", "div_factor", "pct_start", "final_learning_rate", "milestones", "warmup",
               "momentum", "weight_decay", "decay_norms", "clip_norm", "ema",
               "accumulation", "layer_decay", "weights", "freeze_backbone"),
              lambda config: config.model.freeze_from is None, lambda config: "--freeze-from, whose classifier is not updated"),
)  # fmt: skip
"""Of options that several entries of a family read."""


def refusal(config: Config, name: str) -> str | None:
    """With what the option ``name`` was typed that does not read it; None where ``config`` does."""
    for condition in CONDITIONS:
        if name in condition.options and not condition.holds(config):
            return condition.where(config)
    group, _, own = name.rpartition(".")
    if group == "agent" or name in known("policies")["rlmix"].reads:
        if not learns(config.run.method):
            return f"--method {config.run.method}, in which no agent learns"
        reads = read_by(config.agent.algorithm)
        return f"--algorithm {config.agent.algorithm}" if group and reads and own not in reads else None
    if group == "mixing":
        own_ones = {} if is_policy(config.run.method) else hyperparameter_defaults(config.run.method)
        return (
            None
            if own in own_ones
            else f"--method {config.run.method}, which has {', '.join(sorted({*own_ones} - {'alpha'})) or 'none'}"
        )
    schedule = config.recipe.schedule
    optimizer = config.optim.optimizer
    families = (
        ("schedules", schedule, f"--schedule {schedule}"),
        ("optimizers", optimizer, f"--optimizer {optimizer}"),
        ("data", _kind(config), f"--data {config.data.name}"),
    )
    for family, chosen, where in families:
        reading = readers(family, name)
        if reading and chosen not in reading and chosen in known(family):
            return where
    return None


def readers(family: str, option: str) -> list[str]:
    """Names of the members that read an option."""
    return [card.name for card in known(family).values() if option in card.reads]


def read_by(algorithm: str) -> tuple[str, ...]:
    """Hyperparameters of the agent that an algorithm reads; empty for all."""
    if ":" in algorithm:
        own: tuple[str, ...] = getattr(load_attribute("algorithm", algorithm), "reads", ())
        return own
    return known("algorithms")[algorithm].reads


def check_read(configs: Sequence[Config], typed: Collection[str]) -> None:
    """Raise ValueError where an option was typed that none of the ``configs`` reads, or where what that depends on is unknown.

    Args:
        configs: What is run.
        typed: Names of the options that were typed, as of :func:`rlmix.experiments.options.typed_options`.
    """
    for config in configs:
        check_names(config)
    for name in sorted(typed):
        refusals = [refusal(config, name) for config in configs]
        if refusals and all(refusals):
            raise ValueError(f"--{name.replace('_', '-')} must be left out with {refusals[0]}: it would do nothing")


def read_options(args: Sequence[str], about: str | None = None) -> Config:
    """Options of ``rlmix train`` from the command line, over those of --config, or those of the run to resume.

    Args:
        args: The words after ``rlmix train``.
        about: What the help says of the command.

    Raises:
        ValueError: If they do not parse, do not go together, or one was typed that would do nothing.
        FileNotFoundError: If there is no such run or file.
    """
    config = parse(Config, "train", args, about=about)
    run = config.run
    if run.resume is not None:
        elsewhere = [name for name in ("out", "overwrite", "config") if getattr(run, name)]
        if elsewhere:
            raise UsageError(f"--resume goes on with a run where it is, and takes no --{elsewhere[0]}")
        saved = Config.from_mapping(read_config(run.resume))
        config = parse(Config, "train", args, default=saved).changed(out=run.resume)
    elif run.config is not None:
        config = parse(Config, "train", args, default=Config.from_yaml(run.config))
    check_read([config], typed_options(Config, args))
    return config
