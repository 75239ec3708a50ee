"""Every family of which there is a registry: what ``rlmix list`` shows, and where another member is registered."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.policies import POLICIES
from rlmix.common.names import check_name
from rlmix.common.registry import Registry
from rlmix.data.registry import DATA
from rlmix.envs.credit import CREDITS
from rlmix.envs.observations import OBSERVATIONS
from rlmix.envs.rewards import REWARDS
from rlmix.evaluation.metrics import METRICS
from rlmix.experiments.loggers import LOGGERS
from rlmix.maps.approximate import SALIENCY_MODES
from rlmix.mixing.core import RULES
from rlmix.mixing.registry import METHODS, hyperparameters
from rlmix.models import MODELS, model_names
from rlmix.reporting.plots import PLOTS
from rlmix.training.optimizers import OPTIMIZERS
from rlmix.training.schedules import SCHEDULES

FAMILIES: Mapping[str, Registry[Any]] = {
    "methods": METHODS,
    "policies": POLICIES,
    "algorithms": ALGORITHMS,
    "rewards": REWARDS,
    "credits": CREDITS,
    "observations": OBSERVATIONS,
    "rules": RULES,
    "saliency_modes": SALIENCY_MODES,
    "models": MODELS,
    "data": DATA,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "metrics": METRICS,
    "plots": PLOTS,
    "loggers": LOGGERS,
}
"""By the plural that ``rlmix list`` takes."""


def rows(family: str) -> list[tuple[str, str, str]]:
    """Every member of a family: its name, its line of documentation, and the options that it alone reads.

    Args:
        family: A name of :data:`FAMILIES`; ``methods`` has the policies too, for ``--method`` takes either, ``models`` torchvision's.

    Raises:
        ValueError: If there is no such family.
    """
    check_name("family", family, FAMILIES)
    listed = [FAMILIES[family], POLICIES] if family == "methods" else [FAMILIES[family]]
    found = [(entry.name, entry.doc, _reads(family, registry, entry.name)) for registry in listed for entry in registry.entries()]
    if family == "models":
        found += [(name, "torchvision's.", "") for name in model_names() if name not in MODELS]
    return found


def markdown_rows(family: str) -> list[str]:
    """The table of a family for the documentation."""
    lines = ["| name | what it is | reads |", "| --- | --- | --- |"]
    members = [row for row in rows(family) if row[1] != "torchvision's."]
    return lines + [f"| `{name}` | {doc.replace('|', chr(92) + '|')} | {reads} |" for name, doc, reads in members]


def _reads(family: str, registry: Registry[Any], name: str) -> str:
    if registry is METHODS:
        known = hyperparameters(name)
        return ", ".join(_flag(key, parameter.default) for key, parameter in known.items())
    prefix = "agent." if family == "algorithms" else ""
    return ", ".join(f"--{prefix}{option.replace('_', '-')}" for option in registry.entry(name).reads)


def _flag(name: str, default: Any) -> str:
    spelled = " ".join(map(str, default)) if isinstance(default, Sequence) and not isinstance(default, str) else str(default)
    return f"--alpha {spelled}" if name == "alpha" else f"--mixing.{name.replace('_', '-')} {spelled}"
