"""Options as they are typed. Whoever types one that the run does not read is told, for it would do nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from rlmix.common.mapping import from_mapping
from rlmix.common.saved_config import read_config, read_yaml
from rlmix.experiments.options import UsageError, parse, typed_options
from rlmix.experiments.settings import POLICIES, Train

AGENT_READS = {
    "ppo": None,
    "a2c": ("learning_rate", "gamma", "entropy_coefficient", "policy_layers", "value_layers", "rollout_steps"),
    "dqn": ("learning_rate", "gamma", "passes", "minibatch_size", "policy_layers", "rollout_steps"),
    "bandit": ("learning_rate", "entropy_coefficient", "policy_layers"),
}
"""The hyperparameters that an algorithm has; None for all of them, as where it is not named here."""


class Condition(NamedTuple):
    """When some options are read."""

    options: tuple[str, ...]
    holds: Callable[[Train], bool]
    where: Callable[[Train], str]
    """What they were typed with, where it does not hold, and why that does not read them."""


def _method(why: str) -> Callable[[Train], str]:
    return lambda run: f"--method {run.method}, {why}"


def _data(run: Train) -> str:
    return f"--data {run.data}"


CONDITIONS = (
    Condition(("algorithm", "granularity", "observation", "credit", "diversity"), lambda run: run.method == "rlmix",
              _method("in which no agent learns")),
    Condition(("num_top_k", "num_patches", "rule", "reward", "saliency_mode"), lambda run: run.method in POLICIES,
              _method("which is no policy of the environment")),
    Condition(("mixing_seed",), lambda run: run.method != "vanilla", _method("which draws nothing")),
    Condition(("milestones",), lambda run: run.recipe.schedule == "multistep", lambda run: "--schedule onecycle"),
    Condition(("div_factor", "pct_start", "final_learning_rate"), lambda run: run.recipe.schedule == "onecycle",
              lambda run: "--schedule multistep"),
    Condition(("schedule", "learning_rate", "div_factor", "pct_start", "final_learning_rate", "milestones", "momentum", "weight_decay",
               "clip_norm"),
              lambda run: run.freeze_from is None, lambda run: "--freeze-from, whose classifier is not updated"),
    Condition(("data_root", "download"), lambda run: run.data in ("cifar10", "cifar100", "fashion_mnist"), _data),
    Condition(("workers", "skip_corrupt"), lambda run: run.data.startswith("imagefolder:"), _data),
)  # fmt: skip


def refusal(run: Train, name: str) -> str | None:
    """With what the option ``name`` was typed that does not read it; None where ``run`` does."""
    for condition in CONDITIONS:
        if name in condition.options and not condition.holds(run):
            return condition.where(run)
    group, _, own = name.rpartition(".")
    if group == "agent" and run.method != "rlmix":
        return f"--method {run.method}, in which no agent learns"
    reads = AGENT_READS.get(run.algorithm) if group == "agent" else None
    return None if reads is None or own in reads else f"--algorithm {run.algorithm}"


def check_read(runs: Sequence[Train], typed: Collection[str]) -> None:
    """Raise ValueError where an option was typed that none of the ``runs`` reads, or where what that depends on is unknown."""
    for run in runs:
        run.check_names()
    for name in sorted(typed):
        refusals = [refusal(run, name) for run in runs]
        if all(refusals):
            raise ValueError(f"--{name.replace('_', '-')} must be left out with {refusals[0]}: it would do nothing")


def read_options(args: Sequence[str]) -> Train:
    """Options of ``rlmix train`` from the command line, over those of --config, or those of the run to resume."""
    options = _read(args)
    check_read([options], typed_options(Train, args))
    return options


def _read(args: Sequence[str]) -> Train:
    options = parse(Train, "train", args)
    if options.resume is not None:
        elsewhere = [name for name in ("out", "overwrite", "config") if getattr(options, name)]
        if elsewhere:
            raise UsageError(f"--resume goes on with a run where it is, and takes no --{elsewhere[0]}")
        saved = from_mapping(Train, read_config(options.resume))
        return replace(parse(Train, "train", args, default=saved), out=options.resume)
    if options.config is not None:
        saved = from_mapping(Train, read_yaml(options.config))
        return parse(Train, "train", args, default=saved)
    return options
