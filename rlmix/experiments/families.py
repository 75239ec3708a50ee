"""Every family of which there is a registry: what ``rlmix list`` shows, and where another member is registered."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlmix.common.catalogue import Card, cards, constant, torchvision_names
from rlmix.common.names import check_name
from rlmix.common.registry import Registry, find_registry

PLACES = {
    "methods": "rlmix.mixing.registry:METHODS",
    "policies": "rlmix.agents.policies:POLICIES",
    "algorithms": "rlmix.agents.algorithms:ALGORITHMS",
    "rewards": "rlmix.envs.rewards:REWARDS",
    "actions": "rlmix.mixing.actions:ACTIONS",
    "credits": "rlmix.envs.credit:CREDITS",
    "observations": "rlmix.envs.observations:OBSERVATIONS",
    "rules": "rlmix.mixing.core:RULES",
    "saliency_modes": "rlmix.maps.approximate:SALIENCY_MODES",
    "models": "rlmix.models:MODELS",
    "data": "rlmix.data.registry:DATA",
    "optimizers": "rlmix.training.optimizers:OPTIMIZERS",
    "schedules": "rlmix.training.schedules:SCHEDULES",
    "metrics": "rlmix.evaluation.metrics:METRICS",
    "plots": "rlmix.reporting.plots:PLOTS",
    "loggers": "rlmix.experiments.loggers:LOGGERS",
}
"""Where each registry is, by the plural that ``rlmix list`` takes."""


class Families(Mapping[str, Registry[Any]]):
    """The registries, each imported when it is asked for."""

    def __getitem__(self, family: str) -> Registry[Any]:
        return find_registry(PLACES[family])

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


FAMILIES: Mapping[str, Registry[Any]] = Families()
"""By the plural that ``rlmix list`` takes."""


def known(family: str) -> dict[str, Card]:
    """What there is of a family, by name; no member is imported for it."""
    return cards(PLACES[family])


def rows(family: str) -> list[tuple[str, str, str]]:
    """Every member of a family: its name, its line of documentation, and the options that it alone reads.

    Args:
        family: A name of :data:`FAMILIES`; ``methods`` has the policies too, for ``--method`` takes either, ``models`` torchvision's.

    Raises:
        ValueError: If there is no such family.
    """
    check_name("family", family, FAMILIES)
    found = [(card.name, card.doc, _reads(family, card)) for card in known(family).values()]
    if family == "methods":
        found += [(card.name, card.doc, _reads("policies", card)) for card in known("policies").values()]
    if family == "models":
        found += [(name, "torchvision's.", "") for name in model_names() if name not in known("models")]
    return found


def hyperparameter_defaults(method: str) -> dict[str, Any]:
    """The hyperparameters of a method that is no policy, with their defaults."""
    card = known("methods").get(method)
    if card is not None and card.arguments is not None:
        settled = constant("rlmix.mixing.registry:_SETTLED")
        return {name: default for name, default in card.arguments.items() if name not in settled}
    from rlmix.mixing.registry import hyperparameters  # of somebody's own

    return {name: parameter.default for name, parameter in hyperparameters(method).items()}


def model_names() -> list[str]:
    """The project's classifiers, and torchvision's."""
    return [*known("models"), *torchvision_names()]


def markdown_rows(family: str) -> list[str]:
    """The table of a family for the documentation."""
    lines = ["| name | what it is | reads |", "| --- | --- | --- |"]
    members = [row for row in rows(family) if row[1] != "torchvision's."]
    return lines + [f"| `{name}` | {doc.replace('|', chr(92) + '|')} | {reads} |" for name, doc, reads in members]


def _reads(family: str, card: Card) -> str:
    if family == "methods":
        return ", ".join(_flag(key, default) for key, default in hyperparameter_defaults(card.name).items())
    prefix = "agent." if family == "algorithms" else ""
    return ", ".join(f"--{prefix}{option.replace('_', '-')}" for option in card.reads)


def _flag(name: str, default: Any) -> str:
    spelled = " ".join(map(str, default)) if isinstance(default, Sequence) and not isinstance(default, str) else str(default)
    return f"--alpha {spelled}" if name == "alpha" else f"--mixing.{name.replace('_', '-')} {spelled}"
